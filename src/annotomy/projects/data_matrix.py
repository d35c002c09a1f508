"""Data x users of one project: what each member sees of each study or series, and why.

What is seen is read from `project_items` by audience, as the view `visibility` reads it for one person; nothing here decides. Why
something is not seen is found by asking which rules match, each rule once for the page's rows and never once for each cell.
Rows are what the asker sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal
from uuid import UUID

from annotomy.db.engine import ReadTx, unrestricted
from annotomy.projects.access import VALID, Permission, require, visible_series, visible_studies
from annotomy.projects.matrix_axis import Asked, page, position
from annotomy.projects.matrix_schemas import (
    Access,
    AccessCell,
    AccessReason,
    DataMatrix,
    DataRow,
    MemberColumn,
    OwnRule,
)
from annotomy.projects.visibility import IN_FORCE, Rule, predicate, rule_of

Level = Literal["study", "series"]
RULES_OF_ONE_STATEMENT = 100
"""Rules are asked about in statements of this many: planning one of all 500 would cost more than five of 100."""
UID_ATTRIBUTES = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


@dataclass(frozen=True, slots=True)
class _Row:
    key: int
    """Of the study or the series."""
    shown: DataRow


@dataclass(frozen=True, slots=True)
class _Column:
    shown: MemberColumn
    audience_id: int
    reads: bool
    blinded: bool
    writes: bool
    valid: bool
    decided: bool
    """False while the audience has to be decided anew: nothing is shown until then."""


@dataclass(frozen=True, slots=True)
class _PageRule:
    rule: Rule
    role: str | None
    user_id: UUID | None

    def holds_for(self, member: MemberColumn) -> bool:
        return self.role in (None, member.role) and self.user_id in (None, member.user_id)


async def read(tx: ReadTx, project_id: UUID, *, level: Level, q: str, rows: Asked, columns: Asked) -> DataMatrix:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    found_rows, positions, total = await _rows(tx, project_id, level, rows)
    found_columns, names, people = await _columns(tx, project_id, q, columns)
    shown_rows = page(list(zip([one.shown for one in found_rows], positions, strict=True)), rows, total)
    shown_columns = page(list(zip([one.shown for one in found_columns], names, strict=True)), columns, people)
    on_page, members = found_rows[: rows[0]], found_columns[: columns[0]]
    cells = await _cells(tx, project_id, level, on_page, members)
    return DataMatrix(shown_rows, shown_columns, cells)


# -- axes -------------------------------------------------------------------------------------------------------------

_STUDIES = (
    "select st.id as key, st.study_instance_uid, null as series_instance_uid, st.study_date, st.study_description as description,"
    " array_to_string(array(select distinct se.modality from series se where se.study_id = st.id"
    f" and {visible_series('se', project='$1')} order by 1), '\\') as modality, st.study_at, st.id as study_id, 0::bigint as series_id"
    f" from studies st where {visible_studies('st.id', project='$1')}"
    " and ($2::timestamp is null or (st.study_at, st.id) < ($2, $3::bigint)) and $4::bigint is not distinct from $4"
    " order by st.study_at desc, st.id desc limit $5 + 1"
)
_SERIES = (
    "select se.id as key, st.study_instance_uid, se.series_instance_uid, st.study_date, se.series_description as description,"
    " se.modality, st.study_at, st.id as study_id, se.id as series_id"
    f" from studies st join series se on se.study_id = st.id where {visible_series('se', project='$1')}"
    " and ($2::timestamp is null or (st.study_at, st.id, se.id) < ($2, $3::bigint, $4::bigint))"
    " order by st.study_at desc, st.id desc, se.id desc limit $5 + 1"
)


async def _rows(
    tx: ReadTx, project_id: UUID, level: Level, asked: Asked
) -> tuple[list[_Row], list[tuple[object, ...]], int | None]:
    """One row more than asked for, where it begins again, and how many there are; series are not counted, which would read all."""
    after = position(asked, (datetime, int, int)) or (None, None, None)
    found = await tx.fetch(_STUDIES if level == "study" else _SERIES, project_id, *after, asked[0])
    total: int | None = None
    if level == "study":
        total = await tx.fetchval(
            "select count(distinct v.study_id) from visibility v where v.project_id = $1", project_id
        )
    rows = [
        _Row(
            row["key"],
            DataRow(
                row["study_instance_uid"],
                row["series_instance_uid"],
                row["study_date"],
                row["description"],
                row["modality"],
            ),
        )
        for row in found
    ]
    return rows, [(row["study_at"], row["study_id"], row["series_id"]) for row in found], total


async def _columns(
    tx: ReadTx, project_id: UUID, q: str, asked: Asked
) -> tuple[list[_Column], list[tuple[object, ...]], int]:
    named = "strpos(lower(u.username || ' ' || u.display_name), lower($2)) > 0"
    members = "project_members m join users u on u.id = m.user_id where m.project_id = $1"
    found = await tx.fetch(
        "select u.id, u.username, u.display_name, m.role, m.audience_id, m.reads, m.blinded, lower(u.username) as key,"
        " m.permissions && '{annotation.write,segmentation.write}' as writes, m.ruled = (m.audience_id <> 0)"
        f" and (m.good_until is null or m.good_until > now()) as decided, {VALID} as valid from {members}"
        f" and {named} and ($3::text is null or lower(u.username) > $3) order by lower(u.username) limit $4 + 1",
        project_id, q, *(position(asked, (str,)) or (None,)), asked[0],
    )  # fmt: skip
    total: int = await tx.fetchval(f"select count(*) from {members} and {named}", project_id, q)
    columns = [
        _Column(
            MemberColumn(row["id"], row["username"], row["display_name"], row["role"]),
            *(row[name] for name in ("audience_id", "reads", "blinded", "writes", "valid", "decided")),
        )
        for row in found
    ]
    return columns, [(row["key"],) for row in found], total


# -- cells ------------------------------------------------------------------------------------------------------------


async def _cells(
    tx: ReadTx, project_id: UUID, level: Level, rows: list[_Row], columns: list[_Column]
) -> list[list[AccessCell]]:
    whole, part = await _seen(tx, project_id, level, rows, columns)
    rules = await _rules(tx, project_id)
    matched = await _matched(tx, level, rows, [one.rule for one in rules])
    applying = [_masks(rules, column.shown) for column in columns]
    has_rules = bool(await tx.fetchval("select exists (select from project_rules where project_id = $1)", project_id))
    own = await _own_rules(tx, project_id, level)
    cells: list[list[AccessCell]] = []
    for row in rows:
        line: list[AccessCell] = []
        uid = (row.shown.series_instance_uid or row.shown.study_instance_uid).lower()
        for column, masks in zip(columns, applying, strict=True):
            key = (column.audience_id, row.key)
            access, reason = _access(
                column, key in whole, key in part, masks, matched[row.key] if rules else 0, has_rules=has_rules
            )
            line.append(_cell(access, reason, own.get((column.shown.user_id, uid))))
        cells.append(line)
    return cells


@cache
def _cell(access: Access, reason: AccessReason, rule: OwnRule | None) -> AccessCell:
    return AccessCell(access, reason, rule)


def _access(
    column: _Column, whole: bool, part: bool, masks: dict[str, int], matched: int, *, has_rules: bool
) -> tuple[Access, AccessReason]:
    if not column.valid:
        return "none", "membership-not-valid"
    if not column.reads:
        return "none", "role-without-study-read"
    if not column.decided:
        return "none", "being-decided"
    if whole or part:
        if column.blinded:
            return "limited", "own-work-only"
        if not whole:
            return "limited", "part-by-rules" if has_rules else "part-assigned"
        if not column.writes:
            return "read_only", "read-only-role"
        return "full", "rules" if has_rules else "assigned"
    if not has_rules:  # all that is hidden from a member of such a project is the work of others
        return "none", "own-work-only"
    if matched & masks["DENY"]:
        return "none", "denied-by-rule"
    if masks["LIMIT"] and not matched & masks["LIMIT"]:
        return "none", "outside-limits"
    return "none", "no-allow"


async def _seen(
    tx: ReadTx, project_id: UUID, level: Level, rows: list[_Row], columns: list[_Column]
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """(audience, row) of what is seen as a whole, and of what is seen at all."""
    audiences = sorted({column.audience_id for column in columns})
    found = await tx.fetch(
        _SEEN_STUDIES if level == "study" else _SEEN_SERIES, project_id, audiences, [row.key for row in rows]
    )
    whole = {(row["audience_id"], key) for row in found for key in row["whole"] or ()}
    part = {(row["audience_id"], key) for row in found for key in row["part"] or ()}
    return whole, part


_SEEN_STUDIES = """
select audience_id, array_agg(study_id) filter (where whole) as whole, array_agg(study_id) as part from (
  select pi.audience_id, pi.study_id, bool_or(pi.series_id is null) as whole from project_items pi
  where pi.project_id = $1 and pi.audience_id = any($2::bigint[]) and pi.study_id = any($3::bigint[]) group by 1, 2) seen
group by audience_id"""
_SEEN_SERIES = """
select audience_id, array_agg(id) filter (where whole) as whole, array_agg(id) as part from (
  select pi.audience_id, se.id, bool_or(pi.instance_id is null) as whole from series se
  join project_items pi on pi.study_id = se.study_id and (pi.series_id is null or pi.series_id = se.id)
  where pi.project_id = $1 and pi.audience_id = any($2::bigint[]) and se.id = any($3::bigint[]) group by 1, 2) seen
group by audience_id"""


# -- rules ------------------------------------------------------------------------------------------------------------


async def _rules(tx: ReadTx, project_id: UUID) -> list[_PageRule]:
    rows = await tx.fetch(
        "select r.effect, r.level, r.attribute, r.operator, r.terms, r.role, r.user_id from project_rules r"
        f" where r.project_id = $1 and r.effect <> 'ALLOW' and {IN_FORCE} order by r.id",
        project_id,
    )
    return [_PageRule(rule_of(row), row["role"], row["user_id"]) for row in rows]


def _masks(rules: Sequence[_PageRule], member: MemberColumn) -> dict[str, int]:
    """For each effect the rules that hold for the member, a bit for each in the order of `rules`."""
    masks = {"DENY": 0, "LIMIT": 0}
    for number, one in enumerate(rules):
        if one.holds_for(member):
            masks[one.rule.effect] |= 1 << number
    return masks


async def _matched(tx: ReadTx, level: Level, rows: list[_Row], rules: Sequence[Rule]) -> dict[int, int]:
    """For each row the rules that match something in it, a bit for each. Lists of UIDs, as the matrix writes them, are looked up
    here; the database is asked about the others."""
    matched = {row.key: 0 for row in rows}
    others: list[tuple[int, Rule]] = []
    for number, rule in enumerate(rules):
        if not _names_rows(rule, level):
            others.append((number, rule))
            continue
        of_study, terms = rule.attribute == UID_ATTRIBUTES["study"], frozenset(rule.terms)
        for row in rows:
            uid = row.shown.study_instance_uid if of_study else row.shown.series_instance_uid
            if uid in terms:
                matched[row.key] |= 1 << number
    for start in range(0, len(others), RULES_OF_ONE_STATEMENT):
        some = others[start : start + RULES_OF_ONE_STATEMENT]
        values: list[Any] = [list(matched)]
        tests = ", ".join(_within(level, rule, values) for _, rule in some)
        table = "studies st" if level == "study" else "series se join studies st on st.id = se.study_id"
        key = "st.id" if level == "study" else "se.id"
        async with unrestricted(tx):
            answers = await tx.fetch(
                f"select {key} as key, array[{tests}] as matches from {table} where {key} = any($1::bigint[])", *values
            )
        for answer in answers:
            for (number, _), matches in zip(some, answer["matches"], strict=True):
                if matches:
                    matched[answer["key"]] |= 1 << number
    return matched


def _names_rows(rule: Rule, level: Level) -> bool:
    of_study = rule.attribute == UID_ATTRIBUTES["study"]
    of_series = rule.attribute == UID_ATTRIBUTES["series"] and level == "series" and rule.level != "STUDY"
    return rule.operator in ("EQ", "IN") and (of_study or of_series)


def _within(level: Level, rule: Rule, values: list[Any]) -> str:
    """Whether the rule matches the row or something in it."""
    test = predicate(rule, values)
    if level == "study" and rule.level == "SERIES":
        return f"exists (select from series se where se.study_id = st.id and {test})"
    if level == "study" and rule.level == "INSTANCE":
        return f"exists (select from series se join instances i on i.series_id = se.id where se.study_id = st.id and {test})"
    if level == "series" and rule.level == "INSTANCE":
        return f"exists (select from instances i where i.series_id = se.id and {test})"
    return test


async def _own_rules(tx: ReadTx, project_id: UUID, level: Level) -> dict[tuple[UUID, str], OwnRule]:
    """(person, UID) -> what their own rule says that names just this. Where several do, as rules decide: DENY before LIMIT."""
    rows = await tx.fetch(
        "select r.user_id, r.effect, r.terms from project_rules r where r.project_id = $1 and r.user_id is not null"
        f" and r.level = $2 and r.attribute = $3 and r.operator in ('EQ', 'IN') and r.role is null and {IN_FORCE}"
        " order by array_position(array['ALLOW', 'LIMIT', 'DENY'], r.effect)",
        project_id, level.upper(), UID_ATTRIBUTES[level],
    )  # fmt: skip
    return {(row["user_id"], term): row["effect"] for row in rows for term in row["terms"]}
