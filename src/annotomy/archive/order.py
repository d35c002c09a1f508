"""Order of query results, and where a page goes on: every order is total, and a page begins behind the last row of the one
before it (a keyset), so that a page deep in the archive costs what the first one does.

PS3.18 leaves the order to the server; `orderby` of QIDO-RS is a parameter of our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from annotomy.errors import BadRequest

Level = str
Position = list[Any]
"""The values of one row's keys, in their order."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an order: an SQL expression, and what its values are."""

    column: str
    descending: bool = False
    kind: type = int
    nullable: bool = False
    """Rows without a value come last in both directions."""

    @property
    def way(self) -> str:
        return f"{'desc' if self.descending else 'asc'}{' nulls last' if self.nullable else ''}"


STUDY_ORDERS: Final = {
    "StudyDate": Key("st.study_at", kind=datetime),
    "PatientName": Key("st.name_key", kind=str),
    "PatientID": Key("st.patient_id", kind=str),
    "AccessionNumber": Key("st.accession_number", kind=str),
    "StudyInstanceUID": Key("st.study_instance_uid", kind=str),
}
"""Each has an index, so that the archive may be walked in its order. StudyDate orders by day and time."""
SERIES_ORDERS: Final = {
    "Modality": Key("se.modality", kind=str),
    "SeriesNumber": Key("se.series_number", nullable=True),
    "SeriesDescription": Key('se.series_description collate "C"', kind=str),
    "BodyPartExamined": Key('se.body_part_examined collate "C"', kind=str),
    "SeriesInstanceUID": Key("se.series_instance_uid", kind=str),
}
INSTANCE_ORDERS: Final = {
    "InstanceNumber": Key("i.instance_number", nullable=True),
    "SOPClassUID": Key("i.sop_class_uid", kind=str),
    "SOPInstanceUID": Key("i.sop_instance_uid", kind=str),
}
SORTABLE: Final[dict[Level, dict[str, Key]]] = {
    "study": STUDY_ORDERS,
    "series": STUDY_ORDERS | SERIES_ORDERS,
    "instance": STUDY_ORDERS | SERIES_ORDERS | INSTANCE_ORDERS,
}
"""By the level of a query. Keys below the study are first ones only where a UID has narrowed the query: little is sorted then."""
_NEWEST_FIRST = (Key("st.study_at", descending=True, kind=datetime),)
_BELOW_STUDY: Final[dict[Level, tuple[Key, ...]]] = {
    "study": (),
    "series": (Key("se.series_number", nullable=True), Key("se.id")),
    "instance": (
        Key("se.series_number", nullable=True),
        Key("se.id"),
        Key("i.instance_number", nullable=True),
        Key("i.id"),
    ),
}


@dataclass(frozen=True, slots=True)
class Ordering:
    """One attribute of `orderby`."""

    keyword: str
    descending: bool = False


def order_of(level: Level, asked: Sequence[Ordering]) -> tuple[Key, ...]:
    """The total order: what was asked, then what tells rows apart. Newest first when nothing was asked."""
    first: list[Key] = []
    for one in asked:
        key = SORTABLE[level][one.keyword]
        if all(key.column != other.column for other in first):
            first.append(Key(key.column, one.descending, key.kind, key.nullable))
    if not first:
        first = [*_NEWEST_FIRST]
    # The study's key goes the way of the first one: an index of both may be walked.
    study = Key("st.id", descending=first[0].descending)
    rest = [key for key in _BELOW_STUDY[level] if all(key.column != other.column for other in first)]
    return (*first, study, *rest)


def walks_days(order: Sequence[Key]) -> bool:
    """Whether it is the order of days, in which each audience's items lie."""
    return [key.column for key in order[:2]] == ["st.study_at", "st.id"] and (
        order[0].descending == order[1].descending
    )


def begins_with_study(order: Sequence[Key]) -> bool:
    return order[0].column.startswith("st.")


def position_from(order: Sequence[Key], told: Sequence[Any]) -> Position:
    """A position that went through JSON. Raises BadRequest for one of another order."""
    if len(told) != len(order):
        raise BadRequest("This cursor does not belong to this query.")
    try:
        return [
            None if value is None and key.nullable else msgspec.convert(value, key.kind)
            for key, value in zip(order, told, strict=True)
        ]
    except msgspec.ValidationError as error:
        raise BadRequest("This cursor does not belong to this query.") from error


def behind(order: Sequence[Key], position: Position, values: list[Any]) -> list[str]:
    """Conditions for the rows that come after the position; their parameters are appended to `values`."""
    at: list[str] = []
    for value in position:
        values.append(value)
        at.append(f"${len(values)}")
    lead = 0
    while lead < len(order) and not order[lead].nullable and order[lead].descending == order[0].descending:
        lead += 1
    # The keys that an index holds are compared as a row, which is where the walk of that index begins.
    sign = "<" if order[0].descending else ">"
    whole = lead == len(order)
    row = f"({', '.join(key.column for key in order[:lead])}) {sign}{'' if whole else '='} ({', '.join(at[:lead])})"
    conditions = [row] if lead else []
    if not whole:
        alternatives: list[str] = []
        same: list[str] = []
        for key, value, place in zip(order, position, at, strict=True):
            beyond = _beyond(key, value, place)
            if beyond:
                alternatives.append(" and ".join((*same, beyond)))
            # A parameter whose value is null is named all the same: PostgreSQL is to know its type.
            same.append(f"{key.column} is not distinct from {place}" if value is None else f"{key.column} = {place}")
        conditions.append(f"({' or '.join(f'({one})' for one in alternatives)})")
    return conditions


def _beyond(key: Key, value: Any, place: str) -> str:
    if value is None:
        return ""  # nothing comes after what has no value
    compared = f"{key.column} {'<' if key.descending else '>'} {place}"
    return f"({compared} or {key.column} is null)" if key.nullable else compared
