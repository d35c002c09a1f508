"""QIDO-RS (PS3.18 10.6): studies, series, instances."""

import re
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from annotomy.actor import Actor
from annotomy.archive.included import INDEXED, MAX_ROWS, FieldPath, headers_of_rows, include
from annotomy.archive.order import SORTABLE, STUDY_ORDERS, Ordering, order_of
from annotomy.archive.query import DATE_AND_TIME, FUZZY_NAME, MAX_TOTAL, Level, Query, query
from annotomy.dicom.attributes import plain_json
from annotomy.dicomweb.cursor import open_cursor, seal
from annotomy.errors import BadRequest
from annotomy.http.openapi import per_level
from annotomy.services import Services

DICOM_JSON = "application/dicom+json"
DEFAULT_LIMIT = 1000
_CONTROLS = frozenset(
    {"limit", "offset", "includefield", "fuzzymatching", "orderby", "emptyvaluematching", "cursor", "total"}
)
MAX_FIELD_DEPTH = 8
"""Attributes of one includefield, joined by dots: deeper than the templates of PS3.16 go."""


@get(
    "/dicom-web/studies",
    operation_id="QueryStudies",
    opt={"permission": "study.read", "shared": "study.read", "audit": "study.searched", "gives": [DICOM_JSON]},
    tags=["dicomweb"],
)
async def studies(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """Query studies."""
    return await _query(request, actor, services, "study", {})


@get(
    ["/dicom-web/series", "/dicom-web/studies/{study_instance_uid:str}/series"],
    operation_id=per_level("QuerySeries"),
    opt={"permission": "study.read", "shared": "study.read", "audit": "study.searched", "gives": [DICOM_JSON]},
    tags=["dicomweb"],
)
async def series(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """Query series, of one study or of all."""
    return await _query(request, actor, services, "series", request.path_params)


@get(
    [
        "/dicom-web/instances",
        "/dicom-web/studies/{study_instance_uid:str}/instances",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances",
    ],
    operation_id=per_level("QueryInstances"),
    opt={"permission": "study.read", "shared": "study.read", "audit": "study.searched", "gives": [DICOM_JSON]},
    tags=["dicomweb"],
)
async def instances(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """Query instances, of one series, of one study or of all."""
    return await _query(request, actor, services, "instance", request.path_params)


async def _query(
    request: Request[Any, Any, Any], actor: Actor, services: Services, level: Level, path: dict[str, Any]
) -> Response[bytes]:
    match, fields, warnings = dict[str, str](), list[FieldPath](), list[str]()
    for name, value in request.query_params.multi_items():
        if name == "includefield":
            fields += [field for one in value.split(",") if (field := _field(one)) is not None]
        if name in _CONTROLS:
            continue
        keyword = _keyword(name)
        lists = keyword in match and keyword.endswith("UID")
        match[keyword] = f"{match[keyword]},{value}" if lists else value  # a list may be written as a key said again
    for name, keyword in (("study_instance_uid", "StudyInstanceUID"), ("series_instance_uid", "SeriesInstanceUID")):
        if name in path:
            match[keyword] = path[name]
    order = _order(request, level, match, warnings)
    if request.query_params.get("fuzzymatching", "").lower() == "true" and "PatientName" in match:
        match[FUZZY_NAME] = match.pop("PatientName")
    _take_together(match)
    limit = _whole(request, "limit", DEFAULT_LIMIT)
    fields = [path for path in fields if len(path) > 1 or INDEXED[level].isdisjoint(path)]
    if fields and limit > MAX_ROWS:
        limit = MAX_ROWS
        warnings.append(f"Attributes outside of the index are included for {MAX_ROWS} results at a time.")
    counted = request.query_params.get("total", "").lower() == "true"
    asked = Query(level, match, limit, _whole(request, "offset", 0), order, count=counted)
    if "cursor" in request.query_params:
        if asked.offset:
            raise BadRequest("A cursor says where the page begins: send it without an offset.")
        after = open_cursor(services.db, asked, order_of(level, order), request.query_params["cursor"])
        asked = replace(asked, after=after)
    async with services.db.read(actor) as tx:
        found = await query(tx, asked)
        kept = await headers_of_rows(tx, level, found.rows) if fields and found.rows else {}
    if kept:
        await include(level, found.rows, kept, fields)
    headers = {"Cache-Control": "no-store"}
    if found.next is not None:
        headers["Link"] = f'<?{_next_query(request, seal(services.db, asked, found.next))}>; rel="next"'
    if found.total is not None:
        headers["X-Total-Count"] = f"{MAX_TOTAL}+" if found.total > MAX_TOTAL else str(found.total)
    if warnings:
        headers["Warning"] = ", ".join(f'299 annotomy "{one}"' for one in warnings)
    return Response(msgspec.json.encode(found.rows, enc_hook=plain_json), media_type=DICOM_JSON, headers=headers)


def _order(
    request: Request[Any, Any, Any], level: Level, match: dict[str, str], warnings: list[str]
) -> tuple[Ordering, ...]:
    """What of `orderby` can be done; the rest is told in a Warning, as PS3.18 8.3.4 has it for what a server does not support.

    Raises BadRequest for what names no attribute.
    """
    orderings: list[Ordering] = []
    narrowed = any(match.get(uid) for uid in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    for text in ",".join(request.query_params.getall("orderby", [])).split(","):
        name = text.strip()
        if not name:
            continue
        descending = name.startswith("-")
        keyword = _keyword(name.removeprefix("-"))
        if _tag(keyword) is None:
            raise BadRequest(
                "orderby takes keywords or eight hexadecimal digits, with - before it for the other way round."
            )
        if keyword == "StudyTime" and Ordering("StudyDate", descending) in orderings:
            continue  # days are ordered with their times
        if keyword not in SORTABLE[level]:
            warnings.append(f"orderby: {keyword} is not sorted by at this level.")
        elif not orderings and not narrowed and keyword not in STUDY_ORDERS:
            warnings.append(f"orderby: {keyword} comes first only inside of a study or series.")
        else:
            orderings.append(Ordering(keyword, descending))
    return tuple(orderings)


def _next_query(request: Request[Any, Any, Any], cursor: str) -> str:
    """The query string of the next page: relative to the address that was asked, whatever proxies made of that."""
    kept = [
        (name, value) for name, value in request.query_params.multi_items() if name not in ("cursor", "offset", "total")
    ]
    return urlencode([*kept, ("cursor", cursor)])


def _take_together(match: dict[str, str]) -> None:
    """Ranges of StudyDate and StudyTime, both given, are one span (PS3.18 8.3.4.1, PS3.4 C.2.2.2.5)."""
    days, times = match.get("StudyDate", ""), match.get("StudyTime", "")
    if "-" not in days or "-" not in times:
        return
    (first_day, _, last_day), (first, _, last) = days.partition("-"), times.partition("-")
    if (first and not first_day) or (last and not last_day):
        raise BadRequest("A time at an end of the range has a day at that end.")
    del match["StudyDate"], match["StudyTime"]
    match[DATE_AND_TIME] = f"{first_day}{first.partition('.')[0]}-{last_day}{last.partition('.')[0]}"


def _field(name: str) -> FieldPath | None:
    """The tags of an includefield, through sequences where it has dots (PS3.18 8.3.4.1); None for `all`, which is what is in
    the index. Raises BadRequest."""
    if name.lower() == "all":
        return None
    path: list[int] = []
    for part in name.split("."):
        tag = int(part, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", part) else _tag(part)
        if tag is None:
            raise BadRequest(
                "includefield takes keywords of the data dictionary, eight hexadecimal digits, such joined by dots, or all."
            )
        path.append(tag)
    if len(path) > MAX_FIELD_DEPTH:
        raise BadRequest(f"includefield goes through at most {MAX_FIELD_DEPTH - 1} sequences.")
    return tuple(path)


def _tag(keyword: str) -> int | None:
    return tag_for_keyword(keyword) if keyword else None  # some tags of the dictionary have no keyword


def _keyword(name: str) -> str:
    """Keys come as keywords or as eight hexadecimal digits (PS3.18 8.3.4.1)."""
    if len(name) == 8:
        try:
            return keyword_for_tag(int(name, 16)) or name
        except ValueError:
            return name
    return name


def _whole(request: Request[Any, Any, Any], name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadRequest(f"{name} takes a whole number, 0 or more.")
    return int(text)


handlers = [studies, series, instances]
