"""Query: QIDO-RS (PS3.18 10.6) and C-FIND (PS3.4 C.4.1) ask the same operation.

Matching follows PS3.4 C.2.2.2: single value, wildcards, lists of UIDs, ranges of dates; names without regard to case.
Every statement carries the visibility predicate; row-level security is the second wall. A study, series or instance that is kept
in several holdings (docs/decisions/0010) is one row: that of the first that the asker sees; counts are over all of them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal

from annotomy.archive.order import Key, Ordering, Position, begins_with_study, behind, order_of, walks_days
from annotomy.archive.parse import name_key
from annotomy.db.engine import ReadTx
from annotomy.errors import BadRequest
from annotomy.projects.access import (
    first_instance,
    first_series,
    first_study,
    sees_few,
    visible_instances,
    visible_page,
    visible_series,
    visible_studies,
    visible_walk,
)

Level = Literal["study", "series", "instance"]
_NARROW = frozenset(
    {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "AccessionNumber", "PatientName"}
)
"""Keys with an index of their own, which leaves little to sort: other questions walk what the asker sees, newest first."""
MIN_NARROW_PREFIX = 3
"""Characters before a wildcard; less is nearly everybody."""
MAX_RESULTS = 5000
"""Rows of one answer; a client pages on from there."""
MAX_TOTAL = 10_000
"""Counting stops here: a walk over everything that somebody sees would cost far more than the page it stands beside."""


@dataclass(frozen=True, slots=True)
class Query:
    """`match` maps DICOM keywords to the value as sent; empty values match everything."""

    level: Level
    match: dict[str, str] = field(default_factory=dict[str, str])
    limit: int = 100
    offset: int = 0
    order: tuple[Ordering, ...] = ()
    """Empty: the newest study first."""
    after: Position | None = None
    """`QueryResult.next` of the page before, of the same query."""
    count: bool = False
    """Also `QueryResult.total`."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """`rows` are DICOM JSON objects (PS3.18 F.2); keys of higher levels are part of each."""

    rows: list[dict[str, Any]]
    next: Position | None = None
    """Where the next page begins; None on the last one."""
    total: int | None = None
    """All that matches and is visible, wherever the page lies; MAX_TOTAL + 1 for more than MAX_TOTAL."""


FUZZY_NAME, DATE_AND_TIME = "fuzzy PatientName", "StudyDate and StudyTime"
"""Keys that are none of the dictionary's: a name by its parts, and a range of days and times taken together."""
_STUDY_COLUMNS = {
    "StudyInstanceUID": ("st.study_instance_uid", "uid"),
    "PatientID": ("st.patient_id", "text"),
    "PatientName": ("st.name_key", "name"),
    "PatientBirthDate": ("st.patient_birth_date", "date"),
    "PatientSex": ("st.patient_sex", "text"),
    "StudyDate": ("st.study_date", "date"),
    "StudyTime": ("st.study_time", "time"),
    "StudyDescription": ("st.study_description", "text"),
    "AccessionNumber": ("st.accession_number", "text"),
    "ModalitiesInStudy": ("st.modalities", "array"),
    FUZZY_NAME: ("st.name_key", "fuzzy name"),
    DATE_AND_TIME: ("st.study_at", "moment"),
}
_SERIES_COLUMNS = {
    "SeriesInstanceUID": ("se.series_instance_uid", "uid"),
    "Modality": ("se.modality", "text"),
    "SeriesNumber": ("se.series_number", "number"),
    "SeriesDescription": ("se.series_description", "text"),
    "BodyPartExamined": ("se.body_part_examined", "text"),
}
_INSTANCE_COLUMNS = {
    "SOPInstanceUID": ("i.sop_instance_uid", "uid"),
    "SOPClassUID": ("i.sop_class_uid", "uid"),
    "InstanceNumber": ("i.instance_number", "number"),
}
MATCHABLE = {**_STUDY_COLUMNS, **_SERIES_COLUMNS, **_INSTANCE_COLUMNS}


@dataclass(frozen=True, slots=True)
class _LevelSql:
    """A page is cut first, then what is visible inside of its rows is counted.

    `joined` are the holdings that stand for a study f and a series fs which are kept more than once.
    """

    source: str
    selected: str
    visible: str
    first: str
    depth: int
    counted: str = ""
    joined: str = ""


_WHOLE_STUDY = "exists (select from visibility v where v.study_id = {study} and v.series_id is null)"
_SEEN_IN_SERIES = (
    "case when exists (select from visibility v where v.study_id = {se}.study_id"
    " and (v.series_id is null or v.series_id = {se}.id) and v.instance_id is null) then {se}.instance_count"
    f" else (select count(*) from instances ci where ci.series_id = {{se}}.id and {visible_instances('ci')}) end"
)
# Of a study in several holdings: what is seen of each, and once what is the same.
_REPEATED_IN_SERIES = (
    "(select count(distinct ci.sop_instance_uid) from studies cst join series cse on cse.study_id = cst.id"
    " join instances ci on ci.series_id = cse.id where cst.study_instance_uid = p.study_uid"
    f" and cse.series_instance_uid = cs.series_instance_uid and {visible_instances('ci')})"
)
_SERIES_COUNT = (
    f", (select case when p.repeated then {_REPEATED_IN_SERIES} else {_SEEN_IN_SERIES.format(se='cs')} end"
    " from series cs where cs.id = p.series_id) as series_instances"
)
_FIRST_STUDY = (
    " left join lateral (select fst.id, fst.study_at, fst.name_key, fst.patient_id, fst.accession_number, fst.attributes from studies fst where st.repeated"
    f" and fst.study_instance_uid = st.study_instance_uid and {visible_studies('fst.id')} order by fst.id limit 1) f on true"
)
_FIRST_SERIES = (
    " left join lateral (select fse.id, fse.series_number, fse.attributes from series fse join studies fst on fst.id = fse.study_id"
    " where st.repeated and fst.study_instance_uid = st.study_instance_uid"
    f" and fse.series_instance_uid = se.series_instance_uid and {visible_series('fse')} order by fse.id limit 1) fs on true"
)
# What stands for a row where a study may be kept more than once: as if there were but one.
_OF_FIRST = {
    "st.study_at": "coalesce(f.study_at, st.study_at)",
    "st.id": "coalesce(f.id, st.id)",
    "st.name_key": "coalesce(f.name_key, st.name_key)",
    "st.patient_id": "coalesce(f.patient_id, st.patient_id)",
    "st.accession_number": "coalesce(f.accession_number, st.accession_number)",
    "st.attributes": "coalesce(f.attributes, st.attributes)",
    "se.series_number": "case when fs.id is null then se.series_number else fs.series_number end",
    "se.id": "coalesce(fs.id, se.id)",
    "se.attributes": "coalesce(fs.attributes, se.attributes)",
}
_LEVELS: dict[Level, _LevelSql] = {
    "study": _LevelSql("studies st", "", visible_studies("st.id"), first_study("st"), 0),
    "series": _LevelSql(
        "studies st join series se on se.study_id = st.id",
        ", se.id as series_id, {se.attributes} as series",
        visible_series("se"),
        first_series("st", "se"),
        1,
        counted=_SERIES_COUNT,
        joined=_FIRST_STUDY + _FIRST_SERIES,
    ),
    "instance": _LevelSql(
        "studies st join series se on se.study_id = st.id join instances i on i.series_id = se.id",
        ", se.id as series_id, {se.attributes} as series, i.attributes as instance, i.transfer_syntax_uid",
        visible_instances("i"),
        first_instance("st", "i"),
        2,
        counted=_SERIES_COUNT,
        joined=_FIRST_STUDY + _FIRST_SERIES,
    ),
}
# Counts are counts of what is visible (PS3.18 10.6.3.3 leaves them to the server; a hidden series must not show in them).
_STUDY_COUNTS = f"""
cross join lateral (
  select p.all_modalities as modalities, p.all_series::bigint as study_series, p.all_instances::bigint as study_instances
  where not p.repeated and (p.whole or {_WHOLE_STUDY.format(study="p.study_id")})
  union all
  select coalesce(array_agg(distinct s.modality) filter (where s.modality <> ''), '{{}}'), count(*), sum(s.seen)::bigint
  from (select cs.modality, {_SEEN_IN_SERIES.format(se="cs")} as seen from series cs
        where not p.repeated and not p.whole and cs.study_id = p.study_id and {visible_series("cs")}
          and not {_WHOLE_STUDY.format(study="p.study_id")}) s
  having count(*) > 0
  union all
  select coalesce(array_agg(distinct cs.modality) filter (where cs.modality <> ''), '{{}}'), count(distinct cs.series_instance_uid),
    (select count(distinct ci.sop_instance_uid) from studies cst join instances ci on ci.study_id = cst.id
     where cst.study_instance_uid = p.study_uid and {visible_instances("ci")})
  from studies cst join series cs on cs.study_id = cst.id
  where p.repeated and cst.study_instance_uid = p.study_uid and {visible_series("cs")} having count(*) > 0) c"""


async def query(tx: ReadTx, asked: Query) -> QueryResult:
    """Raises BadRequest for a value that the key's form does not allow."""
    level = _LEVELS[asked.level]
    conditions, values = list[str](), list[Any]()
    narrow = False
    for keyword, value in asked.match.items():
        column = _STUDY_COLUMNS.get(keyword)
        if column is None and asked.level == "study" and keyword in (_SERIES_COLUMNS | _INSTANCE_COLUMNS):
            continue  # a key below the level of the query is not matched (PS3.18 10.6.1.2.1)
        column = (
            column
            or _SERIES_COLUMNS.get(keyword)
            or (_INSTANCE_COLUMNS.get(keyword) if asked.level == "instance" else None)
        )
        if column is not None and value not in ("", "*"):
            conditions.append(_condition(keyword, column, value, values))
            narrow |= keyword in _NARROW and len(re.split(r"[*?]", value, maxsplit=1)[0]) >= MIN_NARROW_PREFIX
    order = order_of(asked.level, asked.order)
    assert narrow or begins_with_study(order), "who asks has looked whether this may be sorted"
    # A walk does without the holdings that stand for others, where its reader sees nothing twice.
    joined = bool(level.joined) and (narrow or await tx.fetchval(_SEES_REPEATED))
    stands: Callable[[str], str] = _of_first if joined else str
    order = tuple(replace(key, column=stands(key.column)) for key in order)
    total = None
    if asked.count:
        counted = await _page(
            tx, level, "0 as one", conditions, order_of(asked.level, ()), narrow=narrow, joined=joined,
            limit=MAX_TOTAL + 1, offset=0,
        )  # fmt: skip
        total = await tx.fetchval(f"select count(*) from ({counted}) counted", *values)
    if asked.after is not None:
        conditions += behind(order, asked.after, values)
    limit = min(asked.limit, MAX_RESULTS)
    columns = (
        "st.id as study_id, st.study_instance_uid as study_uid, st.repeated, {st.attributes} as study,"
        " st.modalities as all_modalities, st.series_count as all_series,"
        f" st.instance_count as all_instances{level.selected}"
    )
    page = await _page(
        tx, level, _filled(columns, stands), conditions, order, narrow=narrow, joined=joined,
        limit=limit + 1, offset=asked.offset,
    )  # fmt: skip
    outer = ", ".join(f"p.o{n} {key.way}" for n, key in enumerate(order))
    rows = await tx.fetch(f"select p.*, c.*{level.counted} from ({page}) p {_STUDY_COUNTS} order by {outer}", *values)
    last = [rows[limit - 1][f"o{n}"] for n in range(len(order))] if limit and len(rows) > limit else None
    return QueryResult([_to_json(asked.level, row) for row in rows[:limit]], last, total)


async def _page(
    tx: ReadTx,
    level: _LevelSql,
    columns: str,
    conditions: list[str],
    order: tuple[Key, ...],
    *,
    narrow: bool,
    joined: bool,
    limit: int,
    offset: int,
) -> str:
    """The statement of a page, the one that reaches its first row soonest.

    `joined` brings in what stands for what is kept more than once.

    Limit and offset stand in the text: with parameters the planner would expect a tenth of all rows, and plan each time anew.
    """
    keys = [(key.column, key.way) for key in order]
    if narrow or joined:
        selected = ", ".join(f"{key} as o{n}" for n, (key, _) in enumerate(keys))
        return (
            f"select {selected}, {columns}, false as whole from {level.source}{level.joined}"
            f" where {' and '.join((level.visible, level.first, *conditions))}"
            f" order by {', '.join(f'{key} {way}' for key, way in keys)} limit {limit} offset {offset}"
        )
    if level.depth == 0:
        conditions = [level.first, *conditions]
    if not walks_days(order) and not await sees_few(tx):
        return visible_walk(level.depth, columns, conditions, keys, limit=limit, offset=offset)
    # The day and the study are those of the items, so that the walk begins and ends by them.
    items = [re.sub(r"\bst\.id\b", "pi.study_id", one.replace("st.study_at", "pi.study_at")) for one in conditions]
    return visible_page(level.depth, columns, items, keys, limit=limit, offset=offset)


_SEES_REPEATED = f"select exists (select from studies st where st.repeated and {visible_studies('st.id')})"


def _of_first(column: str) -> str:
    return _OF_FIRST.get(column, column)


def _filled(columns: str, stands: Callable[[str], str]) -> str:
    return re.sub(r"\{([\w.]+)\}", lambda found: stands(found[1]), columns)


def _condition(keyword: str, column: tuple[str, str], value: str, values: list[Any]) -> str:
    name, kind = column
    if kind == "uid":
        uids = [uid for uid in re.split(r"[\\,]", value) if uid]
        values.append(uids[0] if len(uids) == 1 else uids)  # one is estimated as one
        return f"{name} = ${len(values)}" if len(uids) == 1 else f"{name} = any(${len(values)})"
    if kind == "array":
        values.append([item for item in re.split(r"[\\,]", value) if item])
        at = f"${len(values)}::text[]"
        # A modality of which the asker sees no series is not found by it.
        return (
            f"({name} && {at} and ({_WHOLE_STUDY.format(study='st.id')} or exists (select from series ms"
            f" where ms.study_id = st.id and ms.modality = any ({at}) and {visible_series('ms')}))"
            f" or st.repeated and exists (select from studies mst join series ms on ms.study_id = mst.id"
            f" where mst.study_instance_uid = st.study_instance_uid and ms.modality = any ({at}) and {visible_series('ms')}))"
        )
    if kind == "number":
        try:
            values.append(int(value))
        except ValueError:
            raise BadRequest(f"{keyword} takes a whole number.") from None
        return f"{name} = ${len(values)}"
    if kind == "date":
        return _date_range(keyword, name, value, values)
    if kind == "time":
        return _time_range(name, value, values)
    if kind == "moment":
        return _moment_range(name, value, values)
    if kind == "fuzzy name":
        return _fuzzy_name(name, value, values)
    return _name(name, value, values) if kind == "name" else _text(name, value, values)


def _name(name: str, value: str, values: list[Any]) -> str:
    """The whole name, or one component group of it: alphabetic, ideographic, phonetic (PS3.5 6.2.1.2)."""
    key = name_key(value)
    alternatives = [_text(name, key, values)]
    if "=" not in key:
        alternatives.append(_text(name, f"{key}=*", values))
        if not key.isascii():  # the groups that follow are written in other letters
            alternatives += [_text(name, f"*={key}", values), _text(name, f"*={key}=*", values)]
    return f"({' or '.join(f'({one})' for one in alternatives)})"


def _fuzzy_name(name: str, value: str, values: list[Any]) -> str:
    """Each part begins a part of the name, in any order and any group; or, in scripts that are often written without
    parts (홍길동, 山田太郎), the name without its separators holds what was asked for without them (PS3.18 8.3.4.2).
    """
    key = name_key(value).replace("*", "")
    parts = [part for part in re.split(r"[\^= ,]+", key) if part]
    if not parts:
        return "true"
    alternatives: list[str] = []
    for part in parts:
        values.append(r"(^|[\^= ])" + re.sub(r"([^\w])", r"\\\1", part))
        alternatives.append(f"{name} ~ ${len(values)}")
    joined = " and ".join(alternatives)
    if key.isascii():
        return f"({joined})"
    values.append("".join(parts))
    return f"(({joined}) or strpos(translate({name}, '^ ', ''), ${len(values)}) > 0)"


def _text(name: str, value: str, values: list[Any]) -> str:
    if "*" not in value and "?" not in value:
        values.append(value)
        return f"{name} = ${len(values)}"
    prefix = re.split(r"[*?]", value, maxsplit=1)[0]
    parts: list[str] = []
    if prefix:  # a range of a "C" column may use its index under row-level security, LIKE may not
        values.append(prefix)
        parts.append(f'{name} collate "C" >= ${len(values)}')
        values.append(prefix[:-1] + chr(ord(prefix[-1]) + 1))
        parts.append(f'{name} collate "C" < ${len(values)}')
    if value != prefix + "*":
        values.append(re.sub(r"([%_\\])", r"\\\1", value).replace("*", "%").replace("?", "_"))
        parts.append(f"{name} like ${len(values)}")
    return " and ".join(parts)


def _date_range(keyword: str, name: str, value: str, values: list[Any]) -> str:
    first, dash, last = value.partition("-")
    parts: list[str] = []
    for text, operator in ((first, ">=" if dash else "="), (last, "<=")):
        if text:
            values.append(_day(keyword, text))
            at = f"${len(values)}"
            parts.append(f"{name} {operator} {at}")
            if keyword == "StudyDate" and operator != "<=":  # the days of the order, which has an index
                parts.append(f"st.study_at >= {at}::date::timestamp")
            if keyword == "StudyDate" and operator != ">=":
                parts.append(f"st.study_at < {at}::date::timestamp + interval '1 day'")
    return " and ".join(parts) or "true"


def _day(keyword: str, text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        raise BadRequest(f"{keyword} takes a date YYYYMMDD or a range of two.") from None


def _time_range(name: str, value: str, values: list[Any]) -> str:
    first, dash, last = value.partition("-")
    if not dash:
        values.append(first)
        return f"{name} = ${len(values)}"
    values += [first, last or "99"]
    return f'{name} collate "C" >= ${len(values) - 1} and {name} collate "C" <= ${len(values)}'


def _moment_range(name: str, value: str, values: list[Any]) -> str:
    """`first-last` of days with times, each YYYYMMDD[HH[MM[SS]]] or empty: one span from the first moment to the last."""
    first, _, last = value.partition("-")
    parts = ["st.study_date is not null"]  # studies without a day stand at the beginning of time
    for text, operator, filling in ((first, ">=", "000000"), (last, "<=", "235959")):
        if text:
            day, clock = text[:8], text[8:14]
            try:
                values.append(datetime.strptime(day + clock + filling[len(clock) :], "%Y%m%d%H%M%S"))
            except ValueError:
                raise BadRequest("StudyDate and StudyTime take a day YYYYMMDD and a time HHMMSS, or ranges.") from None
            upper = " + interval '1 second'" if operator == "<=" else ""
            parts.append(f"{name} {'<' if upper else operator} ${len(values)}{'::timestamp' if upper else ''}{upper}")
    return " and ".join(parts)


def _to_json(level: Level, row: Any) -> dict[str, Any]:
    result: dict[str, Any] = dict(row["study"])
    result["00080061"] = {"vr": "CS", "Value": row["modalities"]} if row["modalities"] else {"vr": "CS"}
    result["00201206"] = {"vr": "IS", "Value": [row["study_series"]]}
    result["00201208"] = {"vr": "IS", "Value": [row["study_instances"]]}
    if level != "study":
        result |= row["series"]
        result["00201209"] = {"vr": "IS", "Value": [row["series_instances"]]}
    if level == "instance":
        result |= row["instance"]
        result["00083002"] = {"vr": "UI", "Value": [row["transfer_syntax_uid"]]}
    return result


_PATIENT_KEYWORDS = frozenset({"PatientID", "PatientName", "PatientBirthDate", "PatientSex"})
_PATIENT_TAGS = frozenset({"00080005", "00100010", "00100020", "00100030", "00100040"})


async def query_patients(tx: ReadTx, match: dict[str, str], *, limit: int, offset: int = 0) -> QueryResult:
    """The patient level of C-FIND (PS3.4 C.6.1.1.2): PatientID says who is the same, the newest study how they are called."""
    conditions, values = [visible_studies("st.id")], list[Any]()
    for keyword, value in match.items():
        if keyword in _PATIENT_KEYWORDS and value not in ("", "*"):
            conditions.append(_condition(keyword, _STUDY_COLUMNS[keyword], value, values))
    values += [min(limit, MAX_RESULTS), offset]
    rows = await tx.fetch(
        "select distinct on (st.patient_id) st.attributes from studies st"
        f" where {' and '.join(conditions)} order by st.patient_id, st.study_at desc, st.id desc"
        f" limit ${len(values) - 1} offset ${len(values)}",
        *values,
    )
    return QueryResult([{tag: row[0][tag] for tag in row[0].keys() & _PATIENT_TAGS} for row in rows])
