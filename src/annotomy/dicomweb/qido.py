"""QIDO-RS (PS3.18 10.6): studies, series, instances."""

import re
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from annotomy.actor import Actor
from annotomy.archive.included import INDEXED, MAX_ROWS, headers_of_rows, include
from annotomy.archive.query import DATE_AND_TIME, FUZZY_NAME, Level, Query, query
from annotomy.dicom.attributes import plain_json
from annotomy.errors import BadRequest
from annotomy.http.openapi import per_level
from annotomy.services import Services

DICOM_JSON = "application/dicom+json"
DEFAULT_LIMIT = 1000
_CONTROLS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "orderby", "emptyvaluematching"})


@get(
    "/dicom-web/studies",
    operation_id="QueryStudies",
    opt={"permission": "study.read", "audit": "study.searched", "gives": [DICOM_JSON]},
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
    opt={"permission": "study.read", "audit": "study.searched", "gives": [DICOM_JSON]},
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
    opt={"permission": "study.read", "audit": "study.searched", "gives": [DICOM_JSON]},
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
    match, fields, warnings = dict[str, str](), list[int](), list[str]()
    for name, value in request.query_params.multi_items():
        if name == "includefield":
            fields += [tag for one in value.split(",") if (tag := _field(one)) is not None]
        if name in _CONTROLS:
            continue
        keyword = _keyword(name)
        lists = keyword in match and keyword.endswith("UID")
        match[keyword] = f"{match[keyword]},{value}" if lists else value  # a list may be written as a key said again
    for name, keyword in (("study_instance_uid", "StudyInstanceUID"), ("series_instance_uid", "SeriesInstanceUID")):
        if name in path:
            match[keyword] = path[name]
    if "orderby" in request.query_params:
        warnings.append("The orderby parameter is not supported: the newest study comes first.")
    if request.query_params.get("fuzzymatching", "").lower() == "true" and "PatientName" in match:
        match[FUZZY_NAME] = match.pop("PatientName")
    _take_together(match)
    limit = _whole(request, "limit", DEFAULT_LIMIT)
    fields = [tag for tag in fields if tag not in INDEXED[level]]
    if fields and limit > MAX_ROWS:
        limit = MAX_ROWS
        warnings.append(f"Attributes outside of the index are included for {MAX_ROWS} results at a time.")
    asked = Query(level, match, limit=limit, offset=_whole(request, "offset", 0))
    async with services.db.read(actor) as tx:
        found = await query(tx, asked)
        kept = await headers_of_rows(tx, level, found.rows) if fields and found.rows else {}
    if kept:
        await include(level, found.rows, kept, fields)
    headers = {"Cache-Control": "no-store"}
    if warnings:
        headers["Warning"] = ", ".join(f'299 annotomy "{one}"' for one in warnings)
    return Response(msgspec.json.encode(found.rows, enc_hook=plain_json), media_type=DICOM_JSON, headers=headers)


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


def _field(name: str) -> int | None:
    """The tag of an includefield; None for `all`, which is what is in the index. Raises BadRequest."""
    if name.lower() == "all":
        return None
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return int(name, 16)
    tag = tag_for_keyword(name)
    if tag is None:
        raise BadRequest("includefield takes keywords of the data dictionary, eight hexadecimal digits, or all.")
    return tag


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
