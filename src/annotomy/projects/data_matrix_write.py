"""Writes of the matrix data x users: what the project holds, and rules for single people that name single studies or series.

For each person, effect and level there is one rule, `StudyInstanceUID IN [...]` or `SeriesInstanceUID IN [...]`; a change adds
a UID to it or takes one out. So the rules page and the matrix show the same rules, and nothing but rules decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from annotomy.audit import Entry, record_all
from annotomy.db.engine import ReadTx, WriteTx, unrestricted
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Forbidden, NotFound, Problem
from annotomy.events import Event, emit
from annotomy.projects.access import Permission, require, visible_series, visible_studies
from annotomy.projects.data_matrix import UID_ATTRIBUTES
from annotomy.projects.matrix_axis import CHANGED, UNCHANGED, refused, require_none_refused
from annotomy.projects.matrix_schemas import (
    MAX_CHANGES,
    AccessChange,
    AssignmentChange,
    CellResult,
    DataMatrixChange,
    MatrixResult,
    OwnRule,
)
from annotomy.projects.rules import MAX_RULES, MAX_TERMS
from annotomy.projects.service import assign_study, unassign_study
from annotomy.projects.visibility import lock_policy, settle_project

Key = tuple[UUID, str, str]
"""Person, level (STUDY or SERIES), UID."""


@dataclass(slots=True)
class _OwnRules:
    """The rules of a project that name one person and single studies or series, as lists to add to and take from."""

    lists: dict[UUID, set[str]]
    """By rule."""
    about: dict[UUID, tuple[UUID, str, OwnRule, bool]]
    """Rule -> person, level, effect, whether it may grow (has no time of its own)."""
    before: dict[UUID, frozenset[str]]

    def of(self, key: Key) -> set[OwnRule]:
        """What the person's rules say of this UID."""
        return {
            self.about[rule_id][2]
            for rule_id, uids in self.lists.items()
            if self.about[rule_id][:2] == key[:2] and key[2] in uids
        }

    def take(self, key: Key) -> None:
        for rule_id, uids in self.lists.items():
            if self.about[rule_id][:2] == key[:2]:
                uids.discard(key[2])

    def add(self, key: Key, effect: OwnRule) -> None:
        person, level, uid = key
        for rule_id, uids in self.lists.items():
            if self.about[rule_id] == (person, level, effect, True):
                uids.add(uid)
                return
        rule_id = new_id()
        self.lists[rule_id], self.about[rule_id] = {uid}, (person, level, effect, True)


async def write(tx: WriteTx, project_id: UUID, asked: DataMatrixChange) -> MatrixResult:
    """Raises MatrixRefused when a cell did not pass. Nobody gives a view of what they do not see as a whole themselves."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    if not 1 <= len(asked.changes) + len(asked.assignments) <= MAX_CHANGES:
        raise BadRequest(f"Send 1 to {MAX_CHANGES} changes.")
    # The order of everyone who settles: studies, then the project's policy.
    async with unrestricted(tx):
        await tx.fetch(
            "select from studies where study_instance_uid = any($1) order by id for no key update",
            [one.study_instance_uid for one in asked.assignments],
        )
    await lock_policy(tx, project_id)
    assignment_results = await _assign(tx, project_id, asked.assignments, asked.reason)
    results = await _change(tx, project_id, asked.changes, asked.reason)
    require_none_refused(results, assignment_results)
    return MatrixResult(results, assignment_results)


# -- assignments ------------------------------------------------------------------------------------------------------


async def _assign(tx: WriteTx, project_id: UUID, changes: Sequence[AssignmentChange], reason: str) -> list[CellResult]:
    held = await _held(tx, project_id, changes)
    results: list[CellResult] = []
    for one in changes:
        try:
            place = (one.study_instance_uid, one.series_instance_uid)
            if one.assigned and place in held:
                await require(tx, tx.actor, Permission.STUDY_ASSIGN, project_id)
                results.append(UNCHANGED)
                continue
            operation = assign_study if one.assigned else unassign_study
            await operation(tx, project_id, place[0], series_instance_uid=place[1], reason=reason)
            results.append(CHANGED)
        except Problem as problem:
            results.append(refused(problem))
    return results


async def _held(tx: ReadTx, project_id: UUID, changes: Sequence[AssignmentChange]) -> set[tuple[str, str | None]]:
    rows = await tx.fetch(
        "select st.study_instance_uid, se.series_instance_uid from project_studies ps join studies st on st.id = ps.study_id"
        " left join series se on se.id = ps.series_id where ps.project_id = $1 and ps.instance_id is null"
        " and (ps.series_id is null or se.id is not null) and st.study_instance_uid = any($2)",
        project_id, [one.study_instance_uid for one in changes],
    )  # fmt: skip
    return {(row["study_instance_uid"], row["series_instance_uid"]) for row in rows}


# -- rules for single people ------------------------------------------------------------------------------------------


async def _change(tx: WriteTx, project_id: UUID, changes: Sequence[AccessChange], reason: str) -> list[CellResult]:
    if not changes:
        return []
    sights = await _sights(tx, project_id, changes)
    members = {
        row["user_id"]
        for row in await tx.fetch("select user_id from project_members where project_id = $1", project_id)
    }
    rules = await _own_rules(tx, project_id)
    results: list[CellResult] = []
    entries: list[Entry] = []
    seen: set[Key] = set()
    for one, sight in zip(changes, sights, strict=True):
        key = _key(one)
        try:
            before = _require_change(one, sight, rules.of(key), key in seen, one.user_id in members)
        except Problem as problem:
            results.append(refused(problem))
            continue
        seen.add(key)
        if before == ({one.rule} if one.rule else set()):
            results.append(UNCHANGED)
            continue
        rules.take(key)
        if one.rule is not None:
            rules.add(key, one.rule)
        results.append(CHANGED)
        entries.append(_recorded(project_id, one, before, reason))
    if any(one.outcome == "refused" for one in results):
        return results
    if entries:
        await _write_rules(tx, project_id, rules, reason)
        await record_all(tx, entries)
    return results


def _key(change: AccessChange) -> Key:
    level = "STUDY" if change.series_instance_uid is None else "SERIES"
    return change.user_id, level, change.series_instance_uid or change.study_instance_uid


def _require_change(
    change: AccessChange, sight: str, before: set[OwnRule], twice: bool, is_member: bool
) -> set[OwnRule]:
    if twice:
        raise BadRequest("The cell is named twice.")
    if sight == "none":
        raise NotFound("There is no such study in this project.")
    if not is_member:
        raise NotFound("There is no such member.")
    gives = change.rule == "ALLOW" or bool(before & {"DENY", "LIMIT"})
    if gives and change.rule != "DENY" and sight != "whole":
        raise Forbidden("You see a part of this only, and cannot show the whole of it to others.")
    return before


async def _sights(tx: ReadTx, project_id: UUID, changes: Sequence[AccessChange]) -> list[str]:
    """none, part or whole: what the asker sees, through the project, of what each change names."""
    rows = await tx.fetch(
        "select t.n, bool_and(exists (select from visibility v where v.study_id = st.id and v.project_id = $1"
        " and (v.series_id is null or v.series_id = se.id and v.instance_id is null))) as whole"
        " from unnest($2::text[], $3::text[]) with ordinality t (study_uid, series_uid, n)"
        f" join studies st on st.study_instance_uid = t.study_uid and {visible_studies('st.id', project='$1')}"
        " left join series se on se.series_instance_uid = t.series_uid and se.study_id = st.id"
        f" and {visible_series('se', project='$1')} where t.series_uid is null or se.id is not null group by t.n",
        project_id, [one.study_instance_uid for one in changes], [one.series_instance_uid for one in changes],
    )  # fmt: skip
    found = {row["n"]: "whole" if row["whole"] else "part" for row in rows}
    return [found.get(number, "none") for number in range(1, len(changes) + 1)]


async def _own_rules(tx: ReadTx, project_id: UUID) -> _OwnRules:
    rows = await tx.fetch(
        "select r.id, r.user_id, r.level, r.effect, r.terms, r.operator = 'IN' and r.valid_from is null and r.expires_at is null"
        " as grows from project_rules r where r.project_id = $1 and r.user_id is not null and r.role is null"
        " and r.operator in ('EQ', 'IN') and (r.level, r.attribute) in (('STUDY', $2), ('SERIES', $3)) order by r.created_at, r.id",
        project_id, UID_ATTRIBUTES["study"], UID_ATTRIBUTES["series"],
    )  # fmt: skip
    return _OwnRules(
        lists={row["id"]: set(row["terms"]) for row in rows},
        about={row["id"]: (row["user_id"], row["level"], row["effect"], row["grows"]) for row in rows},
        before={row["id"]: frozenset(row["terms"]) for row in rows},
    )


async def _write_rules(tx: WriteTx, project_id: UUID, rules: _OwnRules, reason: str) -> None:
    made = {rule_id: uids for rule_id, uids in rules.lists.items() if rule_id not in rules.before and uids}
    kept = {rule_id: uids for rule_id, uids in rules.lists.items() if rules.before.get(rule_id, uids) != uids}
    gone = [rule_id for rule_id, uids in kept.items() if not uids]
    kept = {rule_id: uids for rule_id, uids in kept.items() if uids}
    if any(len(uids) > MAX_TERMS for uids in rules.lists.values()):
        raise BadRequest(f"A rule names {MAX_TERMS} studies or series at most; write a rule on another attribute.")
    count: int = await tx.fetchval("select count(*) from project_rules where project_id = $1", project_id)
    unwritten = count == 0
    """The project shows what is assigned: with the first rule that has to be said."""
    if count + len(made) + unwritten - len(gone) > MAX_RULES:
        raise BadRequest(f"A project has {MAX_RULES} rules at most.")
    if unwritten:
        await _insert(tx, project_id, new_id(), "STUDY", "ALLOW", None, ["true"], reason)
    for rule_id, uids in made.items():
        person, level, effect, _ = rules.about[rule_id]
        await _insert(tx, project_id, rule_id, level, effect, person, sorted(uids), reason)
    await tx.executemany(
        "update project_rules set operator = 'IN', value = $2, terms = $3, version = version + 1 where id = $1",
        [(rule_id, [sorted(uids)], sorted(uids)) for rule_id, uids in kept.items()],
    )
    await tx.execute("delete from project_rules where id = any($1)", gone)
    for rule_id in (*kept, *gone):
        await _emit(tx, project_id, rule_id, rules.about[rule_id], "rule.changed" if rule_id in kept else "rule.deleted", reason)  # fmt: skip
    people = {rules.about[rule_id][0] for rule_id in (*made, *kept, *gone)}
    await settle_project(tx, project_id, rules_changed=unwritten, rules_of=people)


async def _insert(
    tx: WriteTx, project_id: UUID, rule_id: UUID, level: str, effect: str, person: UUID | None, terms: list[str], reason: str
) -> None:  # fmt: skip
    """For a person: their list. For nobody: all that has a UID, which is everything."""
    operator, value = ("PRESENT", [True]) if person is None else ("IN", [terms])
    attribute = UID_ATTRIBUTES[level.lower()]
    await tx.execute(
        "insert into project_rules (id, project_id, effect, level, attribute, operator, value, terms, user_id, created_by)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        rule_id, project_id, effect, level, attribute, operator, value, terms, person, tx.actor.user_id,
    )  # fmt: skip
    await _emit(tx, project_id, rule_id, (person, level, effect, True), "rule.created", reason)


async def _emit(
    tx: WriteTx,
    project_id: UUID,
    rule_id: UUID,
    about: tuple[UUID | None, str, str, bool],
    what: str,
    reason: str,
) -> None:
    person, level, effect, _ = about
    rule: dict[str, Any] = {"effect": effect, "level": level, "attribute": UID_ATTRIBUTES[level.lower()]}
    rule |= {"user_id": str(person or "")}
    event = Event(
        type=what, object_kind="rule", object_id=str(rule_id), project_id=project_id, data={"rule": rule}, reason=reason
    )
    await emit(tx, event)


def _recorded(project_id: UUID, change: AccessChange, before: set[OwnRule], reason: str) -> Entry:
    uid = change.series_instance_uid or change.study_instance_uid
    return Entry(
        action="access.changed",
        object_kind="study" if change.series_instance_uid is None else "series",
        object_id=uid,
        project_id=project_id,
        study_instance_uid=change.study_instance_uid,
        reason=reason,
        detail={"user_id": str(change.user_id), "rule": change.rule or "", "before": sorted(before)},
    )
