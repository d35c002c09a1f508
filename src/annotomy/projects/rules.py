"""Rules of a project on DICOM attributes: ALLOW, DENY, LIMIT. What they mean together stands in visibility.py."""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound, PreconditionFailed
from annotomy.events import Event, emit
from annotomy.projects.access import Permission, require
from annotomy.projects.attributes import ATTRIBUTES, MAX_VALUE_LENGTH, normalised
from annotomy.projects.members import permissions_of
from annotomy.projects.schemas import NewRule, RuleAnswer, RuleChange
from annotomy.projects.visibility import lock_policy, settle_project

MAX_RULES = 500
"""In one project: each is a part of one SQL predicate."""
MAX_TERMS = 10_000
"""Values of one IN rule: a list of patients or studies of a trial."""
_RANGE = re.compile(r"^\s*([^-]*?)\s*-\s*([^-]*?)\s*$")
_COLUMNS = "id, project_id, effect, level, attribute, operator, value, role, user_id, valid_from, expires_at, created_at, version"


async def list_rules(tx: ReadTx, project_id: UUID) -> list[RuleAnswer]:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    rows = await tx.fetch(
        f"select {_COLUMNS} from project_rules where project_id = $1 order by created_at, id", project_id
    )
    return [_answer(row) for row in rows]


async def create_rule(tx: WriteTx, project_id: UUID, rule: NewRule) -> RuleAnswer:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    if await tx.fetchval("select count(*) from project_rules where project_id = $1", project_id) >= MAX_RULES:
        raise BadRequest(f"A project has {MAX_RULES} rules at most.")
    rule_id = new_id()
    columns = await checked(tx, project_id, rule)
    await tx.execute(
        "insert into project_rules (id, project_id, effect, level, attribute, operator, value, terms, role, user_id, valid_from,"
        " expires_at, created_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        rule_id, project_id, *columns, tx.actor.user_id,
    )  # fmt: skip
    return await _changed(tx, project_id, rule_id, "rule.created")


async def change_rule(tx: WriteTx, project_id: UUID, rule_id: UUID, change: RuleChange, expected: int) -> RuleAnswer:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    before = await _rule(tx, project_id, rule_id)
    if before.version != expected:
        raise PreconditionFailed("The rule was changed meanwhile.", current_version=before.version)
    fields = {name: getattr(before, name) for name in NewRule.__struct_fields__}
    fields |= {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
    columns = await checked(tx, project_id, NewRule(**fields))
    await tx.execute(
        "update project_rules set effect = $3, level = $4, attribute = $5, operator = $6, value = $7, terms = $8, role = $9,"
        " user_id = $10, valid_from = $11, expires_at = $12, version = version + 1 where project_id = $1 and id = $2",
        project_id, rule_id, *columns,
    )  # fmt: skip
    return await _changed(tx, project_id, rule_id, "rule.changed", before)


async def delete_rule(tx: WriteTx, project_id: UUID, rule_id: UUID) -> None:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    before = await _rule(tx, project_id, rule_id)
    await tx.execute("delete from project_rules where id = $1", rule_id)
    await settle_project(tx, project_id, rules_changed=True)
    event = Event(
        type="rule.deleted",
        object_kind="rule",
        object_id=str(rule_id),
        project_id=project_id,
        data={"before": _recorded(before)},
    )
    await emit(tx, event)


async def _changed(
    tx: WriteTx, project_id: UUID, rule_id: UUID, event_type: str, before: RuleAnswer | None = None
) -> RuleAnswer:
    await settle_project(tx, project_id, rules_changed=True)
    rule = await _rule(tx, project_id, rule_id)
    data = {"rule": _recorded(rule)} | ({"before": _recorded(before)} if before else {})
    event = Event(type=event_type, object_kind="rule", object_id=str(rule_id), project_id=project_id, data=data)
    await emit(tx, event)
    return rule


def _recorded(rule: RuleAnswer) -> dict[str, Any]:
    """Without the value: it may be a patient's."""
    return {"effect": rule.effect, "level": rule.level, "attribute": rule.attribute, "operator": rule.operator,
            "role": rule.role, "user_id": str(rule.user_id or ""), "version": rule.version}  # fmt: skip


async def _rule(tx: ReadTx, project_id: UUID, rule_id: UUID) -> RuleAnswer:
    row = await tx.fetchrow(
        f"select {_COLUMNS} from project_rules where project_id = $1 and id = $2", project_id, rule_id
    )
    if row is None:
        raise NotFound("There is no such rule in this project.")
    return _answer(row)


def _answer(row: Any) -> RuleAnswer:
    # The column holds [value]: our connections take a bare text for JSON that is encoded already.
    return RuleAnswer(**{**dict(row), "value": row["value"][0]})


async def checked(tx: ReadTx, project_id: UUID, rule: NewRule) -> tuple[Any, ...]:
    """The columns from effect to expires_at. Raises BadRequest that says what is wrong."""
    if rule.attribute not in ATTRIBUTES:
        raise BadRequest(f"Rules may name these attributes: {', '.join(ATTRIBUTES)}.")
    if rule.role is not None:
        await permissions_of(tx, project_id, rule.role)
    if rule.user_id is not None:  # also somebody who is to become a member: the rule stands before they come
        known = await tx.fetchval("select 1 from users where id = $1 and state <> 'deleted'", rule.user_id)
        if known is None:
            raise BadRequest("There is no such user.")
    _require_times(rule.valid_from, rule.expires_at)
    found = terms(rule.attribute, rule.operator, rule.value)
    return (
        rule.effect, rule.level, rule.attribute, rule.operator, [rule.value], found,
        rule.role, rule.user_id, rule.valid_from, rule.expires_at,
    )  # fmt: skip


def terms(attribute: str, operator: str, value: Any) -> list[str]:
    """The value in the compared form. Raises BadRequest."""
    match operator:
        case "PRESENT":
            if not isinstance(value, bool):
                raise BadRequest("PRESENT takes true or false.")
            return [str(value).lower()]
        case "IN":
            if not isinstance(value, list) or not 1 <= len(value) <= MAX_TERMS:  # pyright: ignore[reportUnknownArgumentType]
                raise BadRequest(f"IN takes a list of 1 to {MAX_TERMS} values.")
            return sorted({_term(attribute, one) for one in value})  # pyright: ignore[reportUnknownVariableType]
        case "RANGE":
            low, high = _range(value)
            pair = [_term(attribute, one) if str(one) != "" else "" for one in (low, high)]
            if pair == ["", ""] or (pair[1] and pair[0] > pair[1]):
                raise BadRequest("RANGE takes from and to, the smaller first; one of them may be empty.")
            return pair
        case _:
            return [_term(attribute, value)]


def _range(value: Any) -> tuple[Any, Any]:
    """[from, to], {"from", "to"}, or DICOM's own `from-to`."""
    if isinstance(value, list) and len(value) == 2:  # pyright: ignore[reportUnknownArgumentType]
        return value[0] if value[0] is not None else "", value[1] if value[1] is not None else ""
    if isinstance(value, dict) and value.keys() <= {"from", "to"}:  # pyright: ignore[reportUnknownMemberType]
        return value.get("from") or "", value.get("to") or ""  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    found = _RANGE.match(value) if isinstance(value, str) else None
    if found is None:
        raise BadRequest("RANGE takes [from, to] or from-to.")
    return found[1], found[2]


def _term(attribute: str, value: Any) -> str:
    text = normalised(attribute, str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text:
        kind = ATTRIBUTES[attribute].kind
        forms = {"text": "a text", "date": "a date YYYYMMDD", "age": "an age as 045Y", "number": "a whole number"}
        raise BadRequest(f"{attribute} takes {forms[kind]}.")
    if len(text) > MAX_VALUE_LENGTH:
        raise BadRequest(f"A value has {MAX_VALUE_LENGTH} characters at most: longer ones are not indexed.")
    return text


def _require_times(valid_from: datetime | None, expires_at: datetime | None) -> None:
    for moment in (valid_from, expires_at):
        if moment is not None and moment.tzinfo is None:
            raise BadRequest("A time carries its offset from UTC.")
    if valid_from is not None and expires_at is not None and valid_from >= expires_at:
        raise BadRequest("The rule would end before it begins.")
