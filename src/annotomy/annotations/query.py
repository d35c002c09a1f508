"""Lists of annotations: filters that combine, keyset pages, totals of what the actor may read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from annotomy.annotations import rights, rows
from annotomy.annotations.schemas import Annotation, Summary
from annotomy.db.engine import ReadTx
from annotomy.errors import BadRequest
from annotomy.http.pages import MAX_LIMIT, Page, decode_cursor, encode_cursor

MAX_SUMMARIES = 5000
"""Items of one page of summaries: the annotations of a large study in one answer of about 2 MB."""
MAX_COUNTED = 100_000
"""Counting stops here and the total is null: beyond, it would cost more than the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is given must hold, all of it."""

    project_id: UUID | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    frame_number: int | None = None
    author: str | None = None
    """A username, or a user's id."""
    label: str | None = None
    """A code's value, or the text of a label without code."""
    states: Sequence[str] | None = None
    tool: str | None = None
    """Part of it from its beginning, without regard to case: versions come behind the name."""
    model: str | None = None
    assigned_to: str | None = None
    """A username, or a user's id."""
    kind: str | None = None
    geometry_type: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    text: str | None = None
    """Part of the description or the label, without regard to case."""
    deleted: bool = False
    """The deleted ones, instead of those that stand."""


async def list_annotations(tx: ReadTx, asked: Filter, *, limit: int, cursor: str | None) -> Page[Annotation]:
    """The newest first."""
    if not 1 <= limit <= MAX_LIMIT:
        raise BadRequest(f"limit is 1 to {MAX_LIMIT}.")
    found, following, total = await _page(tx, rows.ANNOTATION, asked, limit, cursor)
    return Page(items=[rows.annotation(row) for row in found], next=following, total=total)


async def list_summaries(tx: ReadTx, asked: Filter, *, limit: int, cursor: str | None) -> Page[Summary]:
    """The same without geometry, in longer pages."""
    if not 1 <= limit <= MAX_SUMMARIES:
        raise BadRequest(f"limit is 1 to {MAX_SUMMARIES} for summaries.")
    found, following, total = await _page(tx, rows.SUMMARY, asked, limit, cursor)
    return Page(items=[rows.summary(row) for row in found], next=following, total=total)


async def _page(
    tx: ReadTx, columns: str, asked: Filter, limit: int, cursor: str | None
) -> tuple[list[Any], str | None, int | None]:
    if asked.project_id is not None:
        await rights.require_right(tx, rights.Action.READ, asked.project_id)
    values: list[Any] = []
    wanted = _conditions(asked, values)
    project = None if asked.project_id is None else f"${values.index(asked.project_id) + 1}"
    conditions = " and ".join([rights.readable("a", project=project), *wanted])
    place, page_values = "", list(values)
    if cursor is not None:
        (last_id,) = decode_cursor(cursor, (UUID,))
        page_values.append(last_id)
        place = f" and a.id < ${len(page_values)}"
    found = await tx.fetch(
        f"select {columns} from {rows.FROM} where {conditions}{place} order by a.id desc limit {limit + 1}",
        *page_values,
    )
    more = len(found) > limit
    if cursor is None and not more:
        total = len(found)
    else:
        counted = await tx.fetchval(
            f"select count(*) from (select from annotations a {rights.SEEN} where {conditions} limit {MAX_COUNTED + 1}) counted",
            *values,
        )
        total = counted if counted <= MAX_COUNTED else None
    return found[:limit], encode_cursor(str(found[limit - 1]["id"])) if more else None, total


def _conditions(asked: Filter, values: list[Any]) -> list[str]:
    def given(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    conditions = ["a.deleted_at is not null" if asked.deleted else "a.deleted_at is null"]
    for name in ("project_id", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "frame_number", "kind",
                 "geometry_type", "model"):  # fmt: skip
        value = getattr(asked, name)
        if value is not None:
            conditions.append(f"a.{name} = {given(value)}")
    for name, column, operator in (
        ("created_from", "created_at", ">="), ("created_before", "created_at", "<"),
        ("updated_from", "updated_at", ">="), ("updated_before", "updated_at", "<"),
    ):  # fmt: skip
        value = getattr(asked, name)
        if value is not None:
            if value.tzinfo is None:
                raise BadRequest(f"{name} takes a time with its zone, as 2026-01-31T00:00:00Z.")
            conditions.append(f"a.{column} {operator} {given(value)}")
    if asked.label is not None:
        conditions.append(f"a.label_code = {given(asked.label)}")
    if asked.states:
        conditions.append(f"a.state = any({given(asked.states)})")
    if asked.author is not None:
        conditions.append(_person("created_by", asked.author, given))
    if asked.assigned_to is not None:
        conditions.append(_person("assigned_to", asked.assigned_to, given))
    if asked.tool is not None:
        conditions.append(f"starts_with(lower(a.tool), lower({given(asked.tool)}))")
    if asked.text:
        pattern = "".join(f"\\{c}" if c in "\\%_" else c for c in asked.text)
        conditions.append(f"a.search_nfd like '%' || normalize(lower({given(pattern)}), NFD) || '%'")
    return conditions


def _person(column: str, person: str, given: Any) -> str:
    try:
        return f"a.{column} = {given(UUID(person))}"
    except ValueError:
        return f"a.{column} = (select id from users where lower(username) = lower({given(person)}))"
