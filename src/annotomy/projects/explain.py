"""Who sees what, and why: answers for who manages a project. Nothing here decides; it asks what decides.

A preview opens a transaction as that person, narrowed to the project. The explanation tells which rules match; what is
seen comes from the view `visibility` all the same.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, restricted, unrestricted
from annotomy.errors import BadRequest, NotFound
from annotomy.projects.access import (
    VALID,
    Permission,
    require,
    visible_instances,
    visible_series,
    visible_studies,
)
from annotomy.projects.rules import MAX_RULES, checked
from annotomy.projects.schemas import NewRule, PersonsAccess, Preview, PreviewStudy
from annotomy.projects.visibility import IN_FORCE, Rule, newest_seen_by, predicate, rule_of

PREVIEW_STUDIES = 100
"""One page: enough to see whether a rule does what was meant."""
MAX_PERSONS = 1000
"""Persons that one explanation tells about."""


async def preview_actor(tx: ReadTx, project_id: UUID, user_id: UUID) -> Actor:
    """As whom to look. Raises NotFound for who is no member."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    name = await tx.fetchval(
        "select u.username from project_members m join users u on u.id = m.user_id where m.project_id = $1 and m.user_id = $2",
        project_id, user_id,
    )  # fmt: skip
    if name is None:
        raise NotFound("There is no such member.")
    return Actor(user_id=user_id, name=name, project_ids=frozenset({project_id}))


async def count_visible(tx: ReadTx) -> tuple[int, int, int]:
    """Studies, series and instances that the transaction's actor sees."""
    row = await tx.fetchrow(
        f"select (select count(*) from studies st where {visible_studies('st.id')}) as studies,"
        f" (select count(*) from series se where {visible_series('se')}) as series,"
        f" (select count(*) from instances i where {visible_instances('i')}) as instances"
    )
    assert row is not None
    return row["studies"], row["series"], row["instances"]


async def newest_visible(tx: ReadTx) -> list[PreviewStudy]:
    rows = await tx.fetch(
        "select st.study_instance_uid, st.study_date, st.study_description,"
        f" (select count(*) from series se where se.study_id = st.id and {visible_series('se')}) as series,"
        f" (select count(*) from instances i where i.study_id = st.id and {visible_instances('i')}) as instances"
        f" from studies st where {visible_studies('st.id')} order by st.study_at desc, st.id desc limit {PREVIEW_STUDIES}"
    )
    return [PreviewStudy(**dict(row)) for row in rows]


async def preview_draft(tx: ReadTx, project_id: UUID, user_id: UUID, draft: list[NewRule], *, now: datetime) -> Preview:
    """What a member would see if the project had these rules and no others; nothing is stored.

    The compiled predicate is the one that settles a saved rule. Raises NotFound for who is no member.
    """
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    if len(draft) > MAX_RULES:
        raise BadRequest(f"A project has {MAX_RULES} rules at most.")
    member = await tx.fetchrow(
        f"select m.role, m.reads and {VALID} as reads, m.blinded from project_members m"
        " where m.project_id = $1 and m.user_id = $2",
        project_id, user_id,
    )  # fmt: skip
    if member is None:
        raise NotFound("There is no such member.")
    theirs: list[Rule] = []
    for rule in draft:
        terms = (await checked(tx, project_id, rule))[5]
        begun = rule.valid_from is None or rule.valid_from <= now
        lasts = rule.expires_at is None or rule.expires_at > now
        if begun and lasts and rule.role in (None, member["role"]) and rule.user_id in (None, user_id):
            theirs.append(Rule(rule.effect, rule.level, rule.attribute, rule.operator, tuple(terms)))
    rows: list[Any] = []
    if member["reads"]:
        async with unrestricted(tx):
            rows = await newest_seen_by(
                tx,
                project_id,
                theirs,
                has_rules=bool(draft),
                blinded=user_id if member["blinded"] else None,
                limit=PREVIEW_STUDIES,
            )
    first = rows[0] if rows else None
    return Preview(
        user_id=user_id,
        studies=first["all_studies"] if first else 0,
        series=first["all_series"] if first else 0,
        instances=first["all_instances"] if first else 0,
        items=[PreviewStudy(**{name: row[name] for name in PreviewStudy.__struct_fields__}) for row in rows],
    )


async def who_sees(tx: ReadTx, study_instance_uid: str, user_id: UUID | None) -> list[PersonsAccess]:
    """For each project that holds the study and that the actor manages: who sees it, and why or why not.

    Raises NotFound when there is none, be it that there is no such study.
    """
    async with unrestricted(tx):
        held = await tx.fetch(
            "select ps.project_id, array_agg(distinct ps.study_id) as studies from project_studies ps"
            " join studies st on st.id = ps.study_id where st.study_instance_uid = $1 group by ps.project_id",
            study_instance_uid,
        )
        studies = {row["project_id"]: row["studies"] for row in held}
        members = await tx.fetch(
            "select m.project_id, m.user_id, u.username, m.role, m.reads,"
            " exists (select from project_rules r where r.project_id = m.project_id) as ruled,"
            f" ({VALID}) as valid from project_members m join users u on u.id = m.user_id"
            " where m.project_id = any($1)"
            " and m.project_id in (select own.project_id from project_members own where own.user_id = $2"
            " and ($3::uuid[] is null or own.project_id = any ($3)) and 'project.manage' = any (own.permissions)"
            f" and {VALID.replace('m.', 'own.')})"
            f" and ($4::uuid is null or m.user_id = $4) order by m.project_id, u.username limit {MAX_PERSONS}",
            list(studies), tx.actor.user_id, tx.actor.project_ids, user_id,
        )  # fmt: skip
        if not members:
            raise NotFound("There is no such study.")
        return [await _explain(tx, studies[member["project_id"]], member) for member in members]


async def _explain(tx: ReadTx, study_ids: list[int], member: Any) -> PersonsAccess:
    person = Actor(user_id=member["user_id"], name=member["username"], project_ids=frozenset({member["project_id"]}))
    async with restricted(tx, person):
        seen = await tx.fetchrow(
            f"select (select count(*) from series se where se.study_id = any($1) and {visible_series('se')}) as series,"
            f" (select count(*) from instances i where i.study_id = any($1) and {visible_instances('i')}) as instances",
            study_ids,
        )
    assert seen is not None
    held = await tx.fetchval("select sum(instance_count)::bigint from studies where id = any($1)", study_ids)
    matching = await _matching_rules(tx, study_ids, member)
    if not member["valid"]:
        why = "membership-not-valid"
    elif not member["reads"]:
        why = "role-without-study-read"
    else:
        why = "rules" if member["ruled"] else "member-of-a-project-without-rules"
    return PersonsAccess(
        project_id=member["project_id"],
        user_id=member["user_id"],
        username=member["username"],
        role=member["role"],
        sees="nothing" if not seen["instances"] else "all" if seen["instances"] == held else "part",
        series=seen["series"],
        instances=seen["instances"],
        why=why,
        allowed_by=matching["ALLOW"],
        limited_by=matching["LIMIT"],
        denied_by=matching["DENY"],
    )


async def _matching_rules(tx: ReadTx, study_ids: list[int], member: Any) -> dict[str, list[UUID]]:
    """Of the rules that apply to the member, those that match something in the study."""
    rows = await tx.fetch(
        "select r.id, r.effect, r.level, r.attribute, r.operator, r.terms from project_rules r where r.project_id = $1"
        f" and (r.role is null or r.role = $2) and (r.user_id is null or r.user_id = $3) and {IN_FORCE} order by r.id",
        member["project_id"], member["role"], member["user_id"],
    )  # fmt: skip
    found: dict[str, list[UUID]] = {"ALLOW": [], "LIMIT": [], "DENY": []}
    if not rows:
        return found
    values: list[Any] = [study_ids]
    tests = [f"coalesce(bool_or({predicate(rule_of(row), values)}), false)" for row in rows]
    matches = await tx.fetchrow(
        f"select {', '.join(f'{test} as t{n}' for n, test in enumerate(tests))} from studies st"
        " join series se on se.study_id = st.id join instances i on i.series_id = se.id where st.id = any($1)",
        *values,
    )
    assert matches is not None
    for row, matched in zip(rows, matches.values(), strict=True):
        if matched:
            found[row["effect"]].append(row["id"])
    return found
