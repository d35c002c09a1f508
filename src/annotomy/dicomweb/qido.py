"""QIDO-RS (PS3.18 10.6): studies, series, instances."""

from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from pydicom.datadict import keyword_for_tag

from annotomy.actor import Actor
from annotomy.archive.query import Level, Query, query
from annotomy.errors import BadRequest
from annotomy.http.openapi import per_level
from annotomy.services import Services

DICOM_JSON = "application/dicom+json"
DEFAULT_LIMIT = 1000
_CONTROLS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "orderby", "emptyvaluematching"})


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
    match, warnings = dict[str, str](), list[str]()
    for name, value in request.query_params.multi_items():
        if name in _CONTROLS:
            continue
        keyword = _keyword(name)
        match[keyword] = value
    for name, keyword in (("study_instance_uid", "StudyInstanceUID"), ("series_instance_uid", "SeriesInstanceUID")):
        if name in path:
            match[keyword] = path[name]
    if request.query_params.get("fuzzymatching", "").lower() == "true":
        warnings.append(
            '299 annotomy "The fuzzymatching parameter is not supported. Only literal matching has been performed."'
        )
    asked = Query(level, match, limit=_whole(request, "limit", DEFAULT_LIMIT), offset=_whole(request, "offset", 0))
    async with services.db.read(actor) as tx:
        found = await query(tx, asked)
    headers = {"Cache-Control": "no-store"} | ({"Warning": warnings[0]} if warnings else {})
    return Response(msgspec.json.encode(found.rows), media_type=DICOM_JSON, headers=headers)


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
