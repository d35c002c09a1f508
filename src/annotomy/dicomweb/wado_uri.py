"""WADO-URI (PS3.18 9): one instance, or a picture of it, for clients that name everything in the query string."""

import asyncio
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.response import Stream
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from annotomy.actor import Actor
from annotomy.archive.retrieve import InstanceLocation, locate, read_instance
from annotomy.dicom.part10 import file_head
from annotomy.dicom.rendering import MEDIA_TYPES, Presentation, Viewport
from annotomy.dicom.transcode import TranscodeError, to_uncompressed
from annotomy.dicomweb.accept import NotAcceptable
from annotomy.dicomweb.frame_list import frame_numbers
from annotomy.dicomweb.rendered import (
    PRIVATE_DAY,
    NotRendered,
    annotation_of,
    number,
    picture,
    quality_of,
    side,
    window_of,
)
from annotomy.errors import BadRequest, NotFound, Problem, Unavailable
from annotomy.services import Services

DICOM = "application/dicom"
OFFERED = (DICOM, *MEDIA_TYPES)
_IMAGE_ONLY = frozenset(
    {"frameNumber", "windowCenter", "windowWidth", "rows", "columns", "region", "imageQuality", "annotation"}
)
_NOT_DONE = frozenset({"presentationUID", "presentationSeriesUID"})


class NotDeidentified(Problem):
    """WADO-URI was asked to anonymize, which this path does not do: nothing is sent rather than something that is not.

    Export the study with a de-identification profile instead.
    """

    slug = "not-deidentified"
    title = "Objects are not anonymized here"
    status = 501


@get(
    "/dicom-web/wado",
    operation_id="RetrieveByUri",
    opt={
        "permission": "study.read",
        "audit": "study.retrieved",
        "audit_first": True,
        "gives": [*OFFERED],
        "problems": [BadRequest, NotFound, NotAcceptable, NotRendered, NotDeidentified, Unavailable],
    },
    tags=["dicomweb"],
)
async def retrieve(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes] | Stream:
    """One instance as application/dicom, or a frame of it as a picture (`requestType=WADO`).

    Query: requestType, studyUID, seriesUID, objectUID, contentType, transferSyntax, frameNumber, windowCenter, windowWidth,
    rows, columns, region, imageQuality, annotation.
    """
    query = request.query_params
    if query.get("requestType") != "WADO":
        raise BadRequest("requestType is WADO.")
    uids: dict[str, str] = {}
    for name, key in (
        ("studyUID", "study_instance_uid"),
        ("seriesUID", "series_instance_uid"),
        ("objectUID", "sop_instance_uid"),
    ):
        if not query.get(name):
            raise BadRequest(f"{name} is missing.")
        uids[key] = query[name]
    request.state.audited = uids
    if "anonymize" in query:
        raise NotDeidentified("anonymize is not done by WADO-URI; nothing was sent.")
    if not_done := _NOT_DONE & set(query):
        raise BadRequest(f"{min(not_done)} is not supported.")
    async with services.db.read(actor) as tx:
        [at] = await locate(tx, **uids)
    media_type = _media_type(query.get("contentType"), request.headers.get("accept"), at, "frameNumber" in query)
    if media_type == DICOM:
        if given := _IMAGE_ONLY & set(query):
            raise BadRequest(f"{min(given)} is about pictures, and application/dicom was asked for.")
        return await _instance(services, at, query.get("transferSyntax"))
    if "transferSyntax" in query:
        raise BadRequest("transferSyntax goes with application/dicom.")
    if at.number_of_frames == 0:
        raise NotFound("The instance has no picture.")
    [frame_number] = frame_numbers(query.get("frameNumber", "1"), at.number_of_frames)
    body = await picture(services, actor, at, frame_number, _presentation(dict(query), media_type))
    return Response(body, media_type=media_type, headers=PRIVATE_DAY)


def _media_type(asked: str | None, accept: str | None, at: InstanceLocation, one_frame: bool) -> str:
    """PS3.18 9.1.2.2: a picture of a single frame and the whole object otherwise, where nothing was asked for."""
    default = "image/jpeg" if at.number_of_frames == 1 or (one_frame and at.number_of_frames) else DICOM
    names = [one.partition(";")[0].strip().lower() for one in (asked or accept or "*/*").split(",")]
    for name in names:
        if name in OFFERED:
            return name
        if name == "*/*" or name == f"{default.partition('/')[0]}/*":
            return default
    raise NotAcceptable(f"It is offered as {', '.join(OFFERED)}.")


async def _instance(services: Services, at: InstanceLocation, asked: str | None) -> Response[bytes] | Stream:
    """In Explicit VR Little Endian unless another is asked for (PS3.18 9.1.2.2.4); `*` is as stored."""
    syntax = asked or ExplicitVRLittleEndian
    if syntax in ("*", at.transfer_syntax_uid):
        return Stream(services.blobs.stream(at.blob_address), media_type=DICOM, headers=PRIVATE_DAY)
    if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        raise NotAcceptable(
            "It is offered in the transfer syntax of its store, Explicit and Implicit VR Little Endian."
        )
    file = await read_instance(services, at)
    try:
        data_set = await asyncio.to_thread(to_uncompressed, file, syntax)
    except TranscodeError as error:
        raise NotAcceptable("It cannot be written uncompressed; ask with transferSyntax=* for it as stored.") from error
    head = file_head(sop_class_uid=at.sop_class_uid, sop_instance_uid=at.sop_instance_uid, transfer_syntax_uid=syntax)
    return Response(head + data_set, media_type=DICOM, headers=PRIVATE_DAY)


def _presentation(query: dict[str, str], media_type: str) -> Presentation:
    if ("windowCenter" in query) != ("windowWidth" in query):
        raise BadRequest("windowCenter and windowWidth go together.")
    window = window_of(query["windowCenter"], query["windowWidth"]) if "windowCenter" in query else None
    return Presentation(
        media_type=media_type,
        window=window,
        viewport=_viewport(query),
        quality=quality_of(query.get("imageQuality")),
        annotation=annotation_of(query.get("annotation")),
    )


def _viewport(query: dict[str, str]) -> Viewport | None:
    """`rows` and `columns` bound the picture, one alone leaves the other free; `region` is in shares of the frame."""
    if not {"rows", "columns", "region"} & query.keys():
        return None
    parts = [number("region", one) for one in query.get("region", "0,0,1,1").split(",")]
    if len(parts) != 4 or not (0 <= parts[0] < parts[2] <= 1 and 0 <= parts[1] < parts[3] <= 1):
        raise BadRequest("region takes left,top,right,bottom, each from 0 to 1.")
    left, top, right, bottom = parts
    return Viewport(
        side(query["columns"]) if "columns" in query else None,
        side(query["rows"]) if "rows" in query else None,
        (left, top, right - left, bottom - top) if "region" in query else (0, 0, None, None),
        relative="region" in query,
    )


handlers = [retrieve]
