"""Rules become rows: what each audience of a ruled project sees is decided by SQL whenever rules, members or data change.

An audience is the members of one project for whom the same rules hold: those of a role, or one person whom a rule names.
A blinded member, whose role does not read the segmentations of others, is an audience of their own: series that show the work
of others are hidden from them as by a rule, so that a DICOM query tells no more than the list of segmentations does.
The rules that hold for it compile to one predicate; its verdicts lie in `project_items` beside what was assigned, rolled up to whole series and whole
studies where nothing in them is hidden. Reads then join rows, as in a project without rules, and never evaluate a rule
(docs/decisions/0007). Rules that begin or end are met by `good_until`: past it an audience sees nothing until it is settled.

Locks: an exclusive advisory lock on the project when rules or members change, a shared one when data comes or goes, always
after the lock on the study's row. So no study escapes a new rule, and senders do not wait for each other.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from annotomy.db.engine import ReadTx, WriteTx, unrestricted
from annotomy.projects.attributes import ATTRIBUTES, UNREADABLE

Effect = Literal["ALLOW", "DENY", "LIMIT"]
Level = Literal["STUDY", "SERIES", "INSTANCE"]
Operator = Literal["EQ", "NE", "CONTAINS", "RANGE", "IN", "PRESENT"]
LEVELS: tuple[Level, ...] = ("STUDY", "SERIES", "INSTANCE")
IN_FORCE = "(r.valid_from is null or r.valid_from <= now()) and (r.expires_at is null or r.expires_at > now())"
_LOCK_CLASS = 0x72756C65  # "rule": advisory locks of this module


@dataclass(frozen=True, slots=True)
class Rule:
    """What of a rule decides; `terms` are normalised (attributes.py)."""

    effect: Effect
    level: Level
    attribute: str
    operator: Operator
    terms: tuple[str, ...]


# -- compiling --------------------------------------------------------------------------------------------------------


def predicate(rule: Rule, values: list[Any]) -> str:
    """Whether the rule matches, as SQL over st, se and i down to its level; its terms go to `values`.

    An attribute kept above the rule's level is inherited; of one kept below, any value within the object counts. What cannot be
    read may be anything: an ALLOW or a LIMIT, which show, match where that is certain, a DENY already where it is possible.
    """
    negated = rule.operator == "NE" or (rule.operator == "PRESENT" and rule.terms != ("true",))
    test = _test(rule, values)
    if rule.attribute not in _UID_COLUMNS and (rule.effect == "DENY") != negated:
        test = f"({test} or x.unreadable)"
    found = f"exists (select from {_source(rule)} where {test})"
    return f"not {found}" if negated else found


def _test(rule: Rule, values: list[Any]) -> str:
    """Whether one row of the source has a value that the operator, or what it negates, asks for."""
    match rule.operator:
        case "PRESENT":
            return "x.kept is not null"
        case "EQ" | "NE":
            values.append(rule.terms[0])
            return f"x.kept ? ${len(values)}"
        case "IN":
            values.append(list(rule.terms))
            return f"x.kept ?| ${len(values)}::text[]"
        case "CONTAINS":
            values.append(rule.terms[0])
            test = f"strpos(one.value, ${len(values)}) > 0"
        case "RANGE":
            low, high = rule.terms
            tests: list[str] = []
            for term, sign in ((low, ">="), (high, "<=")):
                if term:
                    values.append(term)
                    tests.append(f'one.value collate "C" {sign} ${len(values)}')
            test = " and ".join(tests) or "true"
    return f"exists (select from jsonb_array_elements_text(x.kept) one (value) where {test})"


def _source(rule: Rule) -> str:
    """A row source `x (kept, unreadable)`: for each object that the rule looks at, the jsonb list of the attribute's values, and
    whether there is one that cannot be compared."""
    table = ATTRIBUTES[rule.attribute].table
    if table == "study":
        return f"(values ({_kept('st', rule.attribute)})) x (kept, unreadable)"
    if table == "series":
        if rule.level != "STUDY":
            return f"(values ({_kept('se', rule.attribute)})) x (kept, unreadable)"
        return f"(select {_kept('o', rule.attribute)} from series o where o.study_id = st.id) x (kept, unreadable)"
    if rule.level == "INSTANCE":
        return f"(values ({_kept('i', rule.attribute)})) x (kept, unreadable)"
    within = "o.study_id = st.id" if rule.level == "STUDY" else "o.series_id = se.id"
    return f"(select {_kept('o', rule.attribute)} from instances o where {within}) x (kept, unreadable)"


def _kept(alias: str, attribute: str) -> str:
    assert attribute in ATTRIBUTES  # the name goes into the statement's text
    column = _UID_COLUMNS.get(attribute)
    if column is not None:  # an instance without its UIDs is not stored
        return f"jsonb_build_array({alias}.{column}), false"
    return f"{alias}.rule_values -> '{attribute}', {alias}.rule_values -> '{UNREADABLE}' ? '{attribute}'"


_UID_COLUMNS = {
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "StudyInstanceUID": "study_instance_uid",
}


def merged(rules: Iterable[Rule]) -> list[Rule]:
    """The same rules with one list of values for each attribute: fifty denials of a patient are one look at the row."""
    terms: dict[tuple[Effect, Level, str], set[str]] = {}
    others: list[Rule] = []
    for rule in rules:
        if rule.operator in ("EQ", "IN"):
            terms.setdefault((rule.effect, rule.level, rule.attribute), set()).update(rule.terms)
        else:
            others.append(rule)
    return [Rule(*key, "IN", tuple(sorted(found))) for key, found in terms.items()] + others


@dataclass(frozen=True, slots=True)
class Verdict:
    """DENY beats LIMIT beats ALLOW: seen is what an ALLOW gives, within the LIMITs if there are any, without the DENYs.

    `studies` is what rules about studies say, once for each study: SQL over studies st that a study must fulfil for anything
    of it to be seen, and its flags `allowed` and `limited`. `seen` is the rest, over those flags, se and i.
    """

    studies: str
    flags: str
    seen: str


def verdict(rules: Iterable[Rule], values: list[Any]) -> Verdict:
    of_study: dict[Effect, list[str]] = {"ALLOW": [], "LIMIT": [], "DENY": []}
    below: dict[Effect, list[str]] = {"ALLOW": [], "LIMIT": [], "DENY": []}
    for rule in merged(rules):
        (of_study if rule.level == "STUDY" else below)[rule.effect].append(predicate(rule, values))
    limited = of_study["LIMIT"] or below["LIMIT"]
    seen = [" or ".join(["st.allowed", *below["ALLOW"]])]
    if limited:
        seen.append(" or ".join(["st.limited", *below["LIMIT"]]))
    seen += [f"not ({test})" for test in below["DENY"]]
    return Verdict(
        studies=" and ".join(f"not ({test})" for test in of_study["DENY"]) or "true",
        flags=f"{' or '.join(of_study['ALLOW']) or 'false'} as allowed, {' or '.join(of_study['LIMIT']) or 'false'} as limited",
        seen=" and ".join(f"({test})" for test in seen),
    )


# -- settling ---------------------------------------------------------------------------------------------------------


async def lock_policy(tx: WriteTx, project_id: UUID) -> None:
    """Call before changing rules, members or roles of a project, and `settle_project` after."""
    await tx.execute("select pg_advisory_xact_lock($1, hashtext($2))", _LOCK_CLASS, str(project_id))


async def settle_project(
    tx: WriteTx, project_id: UUID, *, rules_changed: bool = False, rules_of: Collection[UUID] = ()
) -> None:
    """Gives every member their audience, and decides for audiences that are new - for all of them when rules changed, and for
    `rules_of` when only rules that name these people did."""
    ruled: bool = await tx.fetchval(
        "select exists (select from project_rules where project_id = $1)"
        " or exists (select from project_members where project_id = $1 and blinded)",
        project_id,
    )
    await tx.execute("update projects set ruled = $2 where id = $1 and ruled <> $2", project_id, ruled)
    fresh: list[Any] = []
    if not ruled:
        await tx.execute(
            "update project_members set audience_id = 0, good_until = null where project_id = $1 and audience_id <> 0",
            project_id,
        )
    else:
        fresh = await tx.fetch(_MAKE_AUDIENCES, project_id)
        await tx.execute(_ASSIGN_AUDIENCES, project_id)
    await tx.execute(_DROP_AUDIENCES, project_id)
    audiences = await tx.fetch("select id, role, user_id from audiences where project_id = $1 order by id", project_id)
    new = {row["id"] for row in fresh}
    async with unrestricted(tx):
        for audience in audiences:
            if rules_changed or audience["id"] in new or audience["user_id"] in rules_of:
                await _decide(tx, project_id, audience, None)


async def settle_studies(tx: WriteTx, study_ids: list[int]) -> None:
    """Decides anew about these studies in every ruled project that holds them, and drops them where none does any more."""
    async with unrestricted(tx):
        await _settle_studies(tx, study_ids)


async def _settle_studies(tx: WriteTx, study_ids: list[int]) -> None:
    await tx.fetch("select from studies where id = any($1) order by id for no key update", study_ids)
    projects = await tx.fetch(
        "select pg_advisory_xact_lock_shared($2, hashtext(p.id::text)), p.id from projects p where p.id in ("
        " select project_id from project_items where study_id = any($1))"
        " order by p.id",
        study_ids, _LOCK_CLASS,
    )  # fmt: skip
    if not projects:
        return
    # A statement of its own: it sees what whoever held a lock before has committed.
    audiences = await tx.fetch(
        "select id, project_id, role, user_id from audiences where project_id = any($1) order by id",
        [row["id"] for row in projects],
    )
    for audience in audiences:
        await _decide(tx, audience["project_id"], audience, study_ids)


async def settle_due(tx: WriteTx) -> int:
    """Decides anew for audiences of which a rule began or ended; returns how many. Somebody else's work is skipped."""
    due = await tx.fetch("select distinct project_id from audiences where good_until <= now() order by project_id")
    for row in due:
        await lock_policy(tx, row["project_id"])
        await settle_project(tx, row["project_id"], rules_changed=True)
    return len(due)


_DROP_AUDIENCES = """
with dropped as (
  delete from audiences a where a.project_id = $1
  and not exists (select from project_members m where m.project_id = $1 and m.audience_id = a.id) returning a.id)
delete from project_items where project_id = $1 and audience_id in (select id from dropped)"""

_ALONE = (
    "case when m.blinded or exists (select from project_rules r where r.project_id = m.project_id and r.user_id = m.user_id)"
    " then m.user_id end"
)
_MAKE_AUDIENCES = f"""
insert into audiences (project_id, role, user_id)
select distinct m.project_id, m.role, {_ALONE} from project_members m
where m.project_id = $1
on conflict do nothing
returning id"""

_ASSIGN_AUDIENCES = f"""
update project_members m set audience_id = a.id, good_until = a.good_until from audiences a
where m.project_id = $1 and a.project_id = $1 and a.role = m.role
  and a.user_id is not distinct from {_ALONE}
  and m.audience_id is distinct from a.id"""


async def rules_for(tx: ReadTx, project_id: UUID, *, role: str, user_id: UUID | None) -> list[Rule]:
    """The rules in force for the members of a role, or for one person of it whom a rule names."""
    rows = await tx.fetch(
        "select r.effect, r.level, r.attribute, r.operator, r.terms from project_rules r where r.project_id = $1"
        f" and (r.role is null or r.role = $2) and (r.user_id is null or r.user_id = $3) and {IN_FORCE} order by r.id",
        project_id, role, user_id,
    )  # fmt: skip
    return [rule_of(row) for row in rows]


def rule_of(row: Any) -> Rule:
    return Rule(row["effect"], row["level"], row["attribute"], row["operator"], tuple(row["terms"]))


async def _decide(tx: WriteTx, project_id: UUID, audience: Any, study_ids: list[int] | None) -> None:
    """Writes an audience's verdicts, about all that the project holds or about some studies."""
    rules = await rules_for(tx, project_id, role=audience["role"], user_id=audience["user_id"])
    if study_ids is None:
        await tx.execute(
            "with moment as (update audiences set good_until = (select min(moment) from project_rules r,"
            " unnest(array[r.valid_from, r.expires_at]) moment where r.project_id = $2 and moment > now()) where id = $1"
            " returning good_until)"
            " update project_members set good_until = (select good_until from moment) where project_id = $2 and audience_id = $1",
            audience["id"], project_id,
        )  # fmt: skip
    kind = await tx.fetchrow(
        "select exists (select from project_rules where project_id = $2) as has_rules,"
        " exists (select from project_members where project_id = $2 and audience_id = $1 and blinded) as blinded",
        audience["id"], project_id,
    )  # fmt: skip
    assert kind is not None
    if kind["has_rules"] and not any(rule.effect == "ALLOW" for rule in rules):
        await tx.execute(
            "delete from project_items where audience_id = $1 and project_id = $2 and ($3::bigint[] is null or study_id = any($3))",
            audience["id"], project_id, study_ids,
        )  # fmt: skip
        return
    parts = await tx.fetchrow(
        "select coalesce(bool_or(series_id is not null), false) as series, coalesce(bool_or(instance_id is not null), false)"
        " as instances from project_studies where project_id = $1 and ($2::bigint[] is null or study_id = any($2))",
        project_id, study_ids,
    )  # fmt: skip
    assert parts is not None
    finest = max((LEVELS.index(rule.level) for rule in rules), default=0)
    finest = max(finest, 2 if parts["instances"] else 1 if parts["series"] or kind["blinded"] else 0)
    values: list[Any] = [audience["id"], project_id, study_ids]
    decision = verdict(rules, values) if kind["has_rules"] else _ALL
    seen = decision.seen
    if parts["instances"] or parts["series"]:  # else all of a study is held that is held at all
        seen = f"{_HELD[finest]} and {seen}"
    if kind["blinded"]:
        values.append(audience["user_id"])
        seen = f"{seen} and (se.owner_id is null or se.owner_id = ${len(values)})"
    await tx.execute(_statement(finest, decision, seen), *values)


_ALL = Verdict(studies="true", flags="true as allowed, true as limited", seen="true")
_HELD_SERIES = (
    "exists (select from project_studies ps where ps.project_id = $2 and ps.study_id = st.id"
    " and (ps.series_id is null or ps.series_id = se.id)"
)
_HELD = ("true", f"{_HELD_SERIES})", f"{_HELD_SERIES} and (ps.instance_id is null or ps.instance_id = i.id))")
# What is seen of each study, whole where nothing of it is hidden; one form for each depth that rules or assignments reach:
# studies, series, instances. `offset 0` has each row decided once, not once for each use of the outcome.
_SEEN = (
    "select id as study_id, study_at, null::bigint as series_id, null::bigint as instance_id from held st where SEEN",
    """
select study_id, study_at, unnest(case when whole then array[null::bigint] else seen end) as series_id, null::bigint as instance_id
from (select study_id, study_at, bool_and(seen) as whole, array_agg(series_id) filter (where seen) as seen
      from (select st.id as study_id, st.study_at, se.id as series_id, SEEN as seen
            from held st join series se on se.study_id = st.id offset 0) decided
      group by study_id, study_at) study
where seen is not null""",
    """
select study_id, study_at, case when not whole_study then series_id end as series_id,
       unnest(case when whole_study or whole then array[null::bigint] else seen end) as instance_id
from (select *, bool_and(whole) over (partition by study_id) as whole_study,
             row_number() over (partition by study_id order by series_id) as place
      from (select study_id, study_at, series_id, bool_and(seen) as whole, array_agg(instance_id) filter (where seen) as seen
            from (select st.id as study_id, st.study_at, se.id as series_id, i.id as instance_id, SEEN as seen
                  from held st join series se on se.study_id = st.id join instances i on i.series_id = se.id offset 0) decided
            group by study_id, study_at, series_id) one) series
where seen is not null and (not whole_study or place = 1)""",
)


def _statement(depth: int, decision: Verdict, seen: str) -> str:
    """Verdicts that stay are left alone: a rule that hides ten studies of a million deletes ten rows.

    Old and new are laid over each other in one aggregate, since the planner does not know how many there are.
    """
    return f"""
with held as materialized ({_held(decision)}),
changed as materialized (
  select study_id, study_at, series_id, instance_id, min(held_at) as held_at, bool_or(seen) as seen
  from (select study_id, study_at, series_id, instance_id, ctid as held_at, false as seen from project_items
        where project_id = $2 and audience_id = $1 and ($3::bigint[] is null or study_id = any($3))
        union all select study_id, study_at, series_id, instance_id, null, true
        from ({_SEEN[depth].replace("SEEN", seen)}) verdicts) one
  group by study_id, study_at, series_id, instance_id having min(held_at) is null or not bool_or(seen)),
gone as (
  delete from project_items where project_id = $2 and audience_id = $1
  and ctid = any (array(select held_at from changed where not seen)))
insert into project_items (audience_id, project_id, study_id, study_at, series_id, instance_id)
select $1::bigint, $2::uuid, study_id, study_at, series_id, instance_id from changed where seen"""


async def newest_seen_by(
    tx: ReadTx, project_id: UUID, rules: Collection[Rule], *, has_rules: bool, blinded: UUID | None, limit: int
) -> list[Any]:
    """What somebody for whom these rules held would see of the project, without settling anything: its newest studies, each
    with counts of what is seen in it and, the same in every row, in all of the project. `blinded`: who sees no work of others."""
    if has_rules and not any(rule.effect == "ALLOW" for rule in rules):
        return []
    values: list[Any] = [limit, project_id, None]
    decision = verdict(rules, values) if has_rules else _ALL
    seen = f"{_HELD[2]} and {decision.seen}"
    if blinded is not None:
        values.append(blinded)
        seen = f"{seen} and (se.owner_id is null or se.owner_id = ${len(values)})"
    return await tx.fetch(
        f"""
with held as materialized ({_held(decision)}),
seen as (
  select st.id as study_id, se.id as series_id, count(*) as instances
  from held st join series se on se.study_id = st.id join instances i on i.series_id = se.id where {seen} group by st.id, se.id),
by_study as (select study_id, count(*) as series, sum(instances)::bigint as instances from seen group by study_id)
select st.study_instance_uid, st.study_date, st.study_description, b.series, b.instances, count(*) over () as all_studies,
       sum(b.series) over ()::bigint as all_series, sum(b.instances) over ()::bigint as all_instances
from by_study b join studies st on st.id = b.study_id order by st.study_at desc, st.id desc limit $1""",
        *values,
    )


def _held(decision: Verdict) -> str:
    """What the project $2 holds - of the studies $3, where they are given - and rules about studies leave."""
    return f"""
  select st.id, st.study_at, st.study_instance_uid, st.rule_values, {decision.flags} from studies st
  where st.id in (select ps.study_id from project_studies ps
                  where ps.project_id = $2 and ($3::bigint[] is null or ps.study_id = any($3)))
    and {decision.studies}"""
