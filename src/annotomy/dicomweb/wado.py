"""WADO-RS (PS3.18 10.4): metadata, instances, frames, rendered pictures."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream
from pydicom.dataset import Dataset
from pydicom.uid import UID

from annotomy.actor import Actor
from annotomy.archive.decode import decode_frames, frame_sources, render
from annotomy.archive.downloads import admit_download
from annotomy.archive.retrieve import (
    FrameSource,
    InstanceLocation,
    headers,
    locate,
    locate_frames,
    locate_source,
    read_header,
)
from annotomy.dicom.attributes import whole_json_of
from annotomy.dicom.multipart import message_end, part_head
from annotomy.dicom.pixels import PixelError
from annotomy.errors import BadRequest, NotFound, Problem, Unavailable
from annotomy.http.openapi import per_level
from annotomy.identity.credentials import require_fresh
from annotomy.services import Services

DICOM_JSON = "application/dicom+json"
MULTIPART = "multipart/related"
PRIVATE_DAY = {"Cache-Control": "private, max-age=86400"}
"""Instances never change; they are private to who may see them."""
THUMBNAIL_SIDE = 160
BULK_THRESHOLD_BYTES = 1024
"""Larger binary values are told by BulkDataURI; lookup tables stay inline, since viewers need them (PS3.18 F.2.7)."""


class NotRendered(Problem):
    """The pixels could not be decoded: damaged, too large, or of a transfer syntax without a codec here."""

    slug = "not-rendered"
    title = "The frame cannot be decoded"
    status = 406


_VIEWS = {
    "permission": "study.read",
    "shared": "study.read",
    "audit": "study.viewed",
    "problems": [NotRendered, Unavailable],
}


@get(
    [
        "/dicom-web/studies/{study_instance_uid:str}/metadata",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/metadata",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}/metadata",
    ],
    operation_id=per_level("RetrieveMetadata"),
    opt={"permission": "study.read", "shared": "study.read", "audit": "study.read", "gives": [DICOM_JSON]},
    tags=["dicomweb"],
)
async def metadata(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """The attributes of every instance, without pixels."""
    async with services.db.read(actor) as tx:
        located = await locate(tx, **request.path_params)
        kept = await headers(tx, located)
    body = await asyncio.to_thread(_metadata_json, located, kept)
    return Response(body, media_type=DICOM_JSON, headers={"Cache-Control": "no-store"})


@get(
    [
        "/dicom-web/studies/{study_instance_uid:str}",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}",
    ],
    operation_id=per_level("RetrieveInstances"),
    opt={
        "permission": "study.read",
        "shared": "study.export",
        "audit": "study.retrieved",
        "audit_first": True,
        "gives": [MULTIPART],
    },
    tags=["dicomweb"],
)
async def instances(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Stream:
    """Instances as they were stored, as multipart/related. A whole study or series needs a fresh proof of identity, as
    every export does."""
    if "sop_instance_uid" not in request.path_params:
        await require_fresh(services, actor)
    async with services.db.read(actor) as tx:
        located = await locate(tx, **request.path_params)
    if "sop_instance_uid" not in request.path_params:
        await admit_download(services, actor, [located[0].study_instance_uid])
    boundary = secrets.token_hex(16)

    async def message() -> AsyncIterator[bytes]:
        for number, at in enumerate(located):
            kind = f"application/dicom; transfer-syntax={at.transfer_syntax_uid}"
            yield part_head(
                boundary, [("Content-Type", kind), ("Content-Length", str(at.blob_size))], first=number == 0
            )
            async for piece in services.blobs.stream(at.blob_address):
                yield piece
        yield message_end(boundary)

    return Stream(
        message, media_type=f'multipart/related; type="application/dicom"; boundary={boundary}', headers=PRIVATE_DAY
    )


@get(
    "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}"
    "/frames/{frame_list:str}",
    operation_id="RetrieveFrames",
    opt=_VIEWS | {"gives": [MULTIPART, "application/octet-stream"]},
    tags=["dicomweb"],
)
async def frames(
    request: Request[Any, Any, Any],
    frame_list: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[bytes]:
    """Frames as stored, as multipart/related; a single frame alone when asked for as application/octet-stream."""
    async with services.db.read(actor) as tx:
        located, ranges = await locate_frames(tx, **_instance(request))
    numbers = _frame_numbers(frame_list, located.number_of_frames)
    bodies, syntax = await _frame_bodies(services, actor, located, ranges, numbers)
    kind = _frame_media_type(syntax)
    accept = request.headers.get("accept", "")
    if len(bodies) == 1 and "multipart" not in accept and "application/octet-stream" in accept:
        return Response(bodies[0], media_type="application/octet-stream", headers=PRIVATE_DAY)
    boundary = secrets.token_hex(16)
    pieces = list[bytes]()
    for number, frame in enumerate(bodies):
        head = part_head(boundary, [("Content-Type", f"{kind}; transfer-syntax={syntax}")], first=number == 0)
        pieces += [head, frame]
    body = b"".join([*pieces, message_end(boundary)])
    media_type = f'multipart/related; type="{kind}"; transfer-syntax={syntax}; boundary={boundary}'
    return Response(body, media_type=media_type, headers=PRIVATE_DAY)


@get(
    [
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}/rendered",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}"
        "/frames/{frame_list:str}/rendered",
    ],
    operation_id=per_level("RetrieveRendered"),
    opt=_VIEWS | {"gives": ["image/jpeg", "image/png"]},
    tags=["dicomweb"],
)
async def rendered(
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    window: Annotated[str | None, QueryParameter(description="centre,width[,function] in modality units")] = None,
) -> Response[bytes]:
    """One frame as a PNG or JPEG picture."""
    async with services.db.read(actor) as tx:
        source = await locate_source(tx, **_instance(request))
    numbers = _frame_numbers(str(request.path_params.get("frame_list", "1")), source.at.number_of_frames)
    media_type = "image/png" if "image/png" in request.headers.get("accept", "") else "image/jpeg"
    return await _picture(services, source, numbers[0], media_type, window=_window(window))


@get(
    [
        "/dicom-web/studies/{study_instance_uid:str}/thumbnail",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/thumbnail",
        "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}/thumbnail",
    ],
    operation_id=per_level("RetrieveThumbnail"),
    opt=_VIEWS | {"gives": ["image/jpeg"]},
    tags=["dicomweb"],
)
async def thumbnail(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """A small picture of the middle."""
    async with services.db.read(actor) as tx:
        located = [at for at in await locate(tx, **request.path_params) if at.number_of_frames]
    if not located:
        raise NotFound("There is no picture in it.")
    middle = located[len(located) // 2]
    [source] = await frame_sources(services, actor, [middle])
    return await _picture(services, source, (middle.number_of_frames + 1) // 2, "image/jpeg", max_side=THUMBNAIL_SIDE)


def _instance(request: Request[Any, Any, Any]) -> dict[str, str]:
    return {name: uid for name, uid in request.path_params.items() if name.endswith("_uid")}


async def _frame_bodies(
    services: Services, actor: Actor, located: InstanceLocation, ranges: list[tuple[int, int]], numbers: list[int]
) -> tuple[list[bytes], str]:
    """The frames and the transfer syntax that they are sent in."""
    syntax = UID(located.transfer_syntax_uid)
    if ranges and syntax.is_compressed:
        raw = [await services.blobs.read(located.blob_address, *ranges[n - 1]) for n in numbers]
        return [_without_item_headers(frame) for frame in raw], located.transfer_syntax_uid
    if located.blob_address not in _plain_blobs:
        async with services.db.read(actor) as tx:
            [kept] = await headers(tx, [located])
        header = await asyncio.to_thread(read_header, kept)
        plain = (
            ranges
            and str(header.get("PhotometricInterpretation")) != "YBR_FULL_422"
            and int(header.BitsAllocated) % 8 == 0
        )
        if not plain:
            return await _frames_made_plain(services, FrameSource(located, kept, ranges), numbers)
        if len(_plain_blobs) >= MAX_PLAIN_BLOBS:
            _plain_blobs.clear()
        _plain_blobs.add(located.blob_address)
    return [await services.blobs.read(located.blob_address, *ranges[n - 1]) for n in numbers], "1.2.840.10008.1.2.1"


_plain_blobs: set[str] = set()
"""Addresses of files whose native frames go out as they lie, so that a header is read once and not for each frame.

What an address says of its bytes never changes, so nothing here gets out of date; who asks was decided before it is read.
"""
MAX_PLAIN_BLOBS = 100_000
"""About 15 MB."""


async def _frames_made_plain(services: Services, source: FrameSource, numbers: list[int]) -> tuple[list[bytes], str]:
    # One-bit, deflated, big-endian and half-chroma frames go out as plain little-endian bytes, which every viewer reads.
    try:
        frames = [(await decode_frames(services, source, [n - 1]))[0] for n in numbers]
    except PixelError as error:
        raise NotRendered(str(error)) from error
    return [frame.tobytes() for frame in frames], "1.2.840.10008.1.2.1"


def _without_item_headers(frame: bytes) -> bytes:
    """The fragments of an encapsulated frame joined (PS3.5 A.4)."""
    at, pieces = 0, list[bytes]()
    while at + 8 <= len(frame) and frame[at : at + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(frame[at + 4 : at + 8], "little")
        pieces.append(frame[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces)


async def _picture(
    services: Services,
    source: FrameSource,
    frame_number: int,
    media_type: str,
    *,
    window: tuple[float, float] | None = None,
    max_side: int | None = None,
) -> Response[bytes]:
    if source.at.number_of_frames == 0:
        raise NotFound("The instance has no picture.")
    try:
        body = await render(services, source, frame_number - 1, media_type, window=window, max_side=max_side)
    except PixelError as error:
        raise NotRendered(str(error)) from error
    return Response(body, media_type=media_type, headers=PRIVATE_DAY)


def _metadata_json(located: list[InstanceLocation], kept: list[bytes]) -> bytes:
    items = [_attributes(at, read_header(header)) for at, header in zip(located, kept, strict=True)]
    return msgspec.json.encode(items, enc_hook=_plain)


def _plain(value: Any) -> Any:
    """pydicom's values are subclasses of the plain types, which the encoder wants."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"no JSON form of {type(value).__name__}")


def _attributes(at: InstanceLocation, header: Dataset) -> dict[str, Any]:
    base = f"/dicom-web/studies/{at.study_instance_uid}/series/{at.series_instance_uid}/instances/{at.sop_instance_uid}"

    def told_by_uri(element: Any) -> str:
        return f"{base}/bulkdata/{int(element.tag):08X}"

    json = whole_json_of(header, BULK_THRESHOLD_BYTES, told_by_uri)
    for name in [name for name in json if name.startswith("0028") and "BulkDataURI" in json[name]]:
        json[name] = header[int(name, 16)].to_json_dict(None, 1 << 30)
    if (
        str(header.get("PhotometricInterpretation", "")) == "YBR_FULL_422"
        and not UID(at.transfer_syntax_uid).is_compressed
    ):
        json["00280004"] = {"vr": "CS", "Value": ["RGB"]}
    if not UID(at.transfer_syntax_uid).is_compressed:
        json["00083002"] = {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]}
    else:
        json["00083002"] = {"vr": "UI", "Value": [at.transfer_syntax_uid]}
    if at.number_of_frames:
        json["7FE00010"] = {"vr": "OW", "BulkDataURI": f"{base}/frames"}
    return json


def _frame_numbers(text: str, number_of_frames: int) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise BadRequest("Frames are named by whole numbers from 1, separated by commas.")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) != len(numbers):
        raise BadRequest("Each frame is named once.")  # a short address must not ask for a frame a thousand times
    if any(not 1 <= number <= number_of_frames for number in numbers):
        raise NotFound(f"The instance has the frames 1 to {number_of_frames}.")
    return numbers


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        centre, width = (float(part) for part in text.split(",")[:2])
    except ValueError:
        raise BadRequest("window takes centre,width in modality units.") from None
    if width <= 0:
        raise BadRequest("The window's width is above 0.")
    return centre, width


def _frame_media_type(syntax: str) -> str:
    """PS3.18 Table 8.7.3-5."""
    if not UID(syntax).is_compressed:
        return "application/octet-stream"
    if syntax.startswith("1.2.840.10008.1.2.4.20"):
        return "image/jphc"
    return {
        "1.2.840.10008.1.2.5": "image/dicom-rle",
        "1.2.840.10008.1.2.4.80": "image/jls",
        "1.2.840.10008.1.2.4.81": "image/jls",
        "1.2.840.10008.1.2.4.90": "image/jp2",
        "1.2.840.10008.1.2.4.91": "image/jp2",
    }.get(syntax, "image/jpeg")


handlers = [metadata, instances, frames, rendered, thumbnail]
