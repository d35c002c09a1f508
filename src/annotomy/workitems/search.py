"""Search of workitems (PS3.4 CC.2.8, PS3.18 11.9): any attribute, also inside of sequences, by the matching of C.2.2.2.

A key inside of a sequence is written with dots: `ScheduledWorkitemCodeSequence.CodeValue`, `00404018.00080100`.
"""

import re
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from annotomy.db.engine import ReadTx
from annotomy.errors import BadRequest
from annotomy.workitems import attributes as said
from annotomy.workitems.service import FROM, SELECT, STATE_SQL, VISIBLE, Workitem

MAX_DEPTH = 4
MAX_KEYS = 32
MAX_RESULTS = 1000
_RANGES = frozenset({"DA", "DT", "TM"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


async def search_workitems(
    tx: ReadTx, match: dict[str, str], *, limit: int, offset: int
) -> tuple[list[Workitem], bool]:
    """In the order of their making, and whether there are more. Raises BadRequest."""
    limit = min(limit, MAX_RESULTS)
    values: list[Any] = []
    conditions = _conditions(match, values)
    rows = await tx.fetch(
        f"{SELECT}{FROM} where {VISIBLE}{conditions} order by w.id limit {limit + 1:d} offset {offset:d}", *values
    )
    return [Workitem(**dict(row)) for row in rows[:limit]], len(rows) > limit


async def matches(tx: ReadTx, workitem_uid: str, match: dict[str, str]) -> bool:
    """Whether the workitem is one that the search would find."""
    values: list[Any] = [workitem_uid]
    conditions = _conditions(match, values)
    return bool(
        await tx.fetchval(f"select exists (select{FROM} where w.workitem_uid = $1 and {VISIBLE}{conditions})", *values)
    )


def check_keys(match: dict[str, str]) -> None:
    """Raises BadRequest for what no search can be made of."""
    _conditions(match, [])


def _conditions(match: dict[str, str], values: list[Any]) -> str:
    if len(match) > MAX_KEYS:
        raise BadRequest(f"A search has at most {MAX_KEYS} keys.")
    parts: list[str] = []
    for key, value in match.items():
        path = [_tag(part) for part in key.split(".")]
        if len(path) > MAX_DEPTH:
            raise BadRequest(f"A key is at most {MAX_DEPTH} sequences deep.")
        if said.TRANSACTION in path:
            raise BadRequest("The Transaction UID cannot be searched for.")
        if value not in ("", "*"):
            parts.append(_condition(path, value, values))
    return "".join(f" and {part}" for part in parts)


def _condition(path: list[str], value: str, values: list[Any]) -> str:
    if path == [said.STATE]:
        values.append(value)
        return f"{STATE_SQL} = ${len(values)}"
    if path == [said.INSTANCE]:
        values.append(_list(value))
        return f"w.workitem_uid = any (${len(values)})"
    within, closing = "w.attributes", ""
    sql = ""
    for depth, tag in enumerate(path[:-1]):
        sql += f"exists (select from jsonb_array_elements({within} -> '{tag}' -> 'Value') s{depth} where "
        within, closing = f"s{depth}", closing + ")"
    tested = _tested(_vr(path[-1]), value, values)
    return (
        f"{sql}exists (select from jsonb_array_elements({within} -> '{path[-1]}' -> 'Value') e where {tested}){closing}"
    )


def _tested(vr: str, value: str, values: list[Any]) -> str:
    text = "(e #>> '{}')"
    if vr == "SQ":
        raise BadRequest("A sequence is searched by an attribute inside of it, behind a dot.")
    if vr == "UI":
        values.append(_list(value))
        return f"{text} = any (${len(values)})"
    if vr == "PN":
        pattern = _like(value.lower(), values)
        return "(" + " or ".join(f"lower(e ->> '{group}') {pattern}" for group in _NAME_GROUPS) + ")"
    if vr in _RANGES:
        return _range(text, value, values)
    return f"{text} {_like(value, values)}"


def _range(text: str, value: str, values: list[Any]) -> str:
    """Bounds compare as far as they are written. (A dash before four digits at the end would be a time zone.)"""
    found = re.fullmatch(r"([0-9.]*)(-?)([0-9.]*)", value)
    if found is None:
        raise BadRequest("A date and time is written in digits, two of them with a dash between.")
    first, dash, last = found.groups()
    parts: list[str] = []
    for bound, operator in ((first, ">=" if dash else "="), (last, "<=")):
        if bound:
            values.append(bound)
            parts.append(f'left({text}, length(${len(values)}::text)) collate "C" {operator} ${len(values)}')
    return "(" + " and ".join(parts or ["true"]) + ")"


def _like(value: str, values: list[Any]) -> str:
    if "*" not in value and "?" not in value:
        values.append(value)
        return f"= ${len(values)}"
    values.append(re.sub(r"([%_\\])", r"\\\1", value).replace("*", "%").replace("?", "_"))
    return f"like ${len(values)}"


def _list(value: str) -> list[str]:
    return [one for one in re.split(r"[\\,]", value) if one]


def _tag(name: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return name.upper()
    tag = tag_for_keyword(name)
    if tag is None:
        raise BadRequest("A key is a keyword of the data dictionary or eight hexadecimal digits.")
    return f"{tag:08X}"


def _vr(tag: str) -> str:
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "LO"  # private: matched as text
