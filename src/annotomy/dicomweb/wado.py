"""WADO-RS (PS3.18 10.4): instances and frames. Attributes: `metadata.py`; pictures: `rendered.py`."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream
from pydicom.uid import UID

from annotomy.actor import Actor
from annotomy.archive.decode import decode_frames, transcode_frame
from annotomy.archive.downloads import admit_download
from annotomy.archive.retrieve import (
    FrameSource,
    InstanceLocation,
    headers,
    locate,
    locate_frames,
    read_header,
)
from annotomy.dicom.multipart import message_end, part_head
from annotomy.dicom.pixels import PixelError
from annotomy.dicomweb.accept import NotAcceptable, accepted, covers
from annotomy.dicomweb.frame_list import frame_numbers
from annotomy.dicomweb.rendered import PRIVATE_DAY, NotRendered
from annotomy.errors import Unavailable
from annotomy.http.openapi import per_level
from annotomy.identity.credentials import require_fresh
from annotomy.services import Services

MULTIPART, OCTETS, HTJ2K_TYPE = "multipart/related", "application/octet-stream", "image/jphc"
AHEAD_BYTES = 2 << 20
"""An instance up to this is read whole, and the one after it meanwhile; larger ones stream."""
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
HTJ2K_SYNTAXES = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
"""What frames are transcoded to: lossless. Lossy HTJ2K (.203) goes out only as it is stored."""


_VIEWS = {
    "permission": "study.read",
    "shared": "study.read",
    "audit": "study.viewed",
    "problems": [NotRendered, NotAcceptable, Unavailable],
}


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

    return Stream(
        _message(services, located, boundary),
        media_type=f'multipart/related; type="application/dicom"; boundary={boundary}',
        headers=PRIVATE_DAY,
    )


async def _message(services: Services, located: list[InstanceLocation], boundary: str) -> AsyncIterator[bytes]:
    """Every instance as a part. While one goes out the next is read, where they are small."""
    ahead: asyncio.Task[bytes] | None = None
    try:
        for number, at in enumerate(located):
            kind = f"application/dicom; transfer-syntax={at.transfer_syntax_uid}"
            told = [("Content-Type", kind), ("Content-Length", str(at.blob_size))]
            head = part_head(boundary, told, first=number == 0)
            if at.blob_size > AHEAD_BYTES:
                yield head
                async for piece in services.blobs.stream(at.blob_address):
                    yield piece
                continue
            body = await (ahead or services.blobs.read(at.blob_address))
            following = located[number + 1] if number + 1 < len(located) else None
            ahead = None
            if following is not None and following.blob_size <= AHEAD_BYTES:
                ahead = asyncio.create_task(services.blobs.read(following.blob_address))
            yield head + body
        yield message_end(boundary)
    finally:
        if ahead is not None:
            ahead.cancel()


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
    """Frames as stored, as multipart/related; a single frame alone when asked for as application/octet-stream.

    A transfer syntax that is named instead of the one of the store: HTJ2K, or Explicit VR Little Endian.
    """
    async with services.db.read(actor) as tx:
        located, ranges = await locate_frames(tx, **_instance(request))
    numbers = frame_numbers(frame_list, located.number_of_frames)
    wanted = _wanted_syntax(request, located.transfer_syntax_uid)
    if wanted is None:
        bodies, syntax = await _frame_bodies(services, actor, located, ranges, numbers)
    else:
        bodies, syntax = await _frames_transcoded(services, actor, located, ranges, numbers, wanted), wanted
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


def _wanted_syntax(request: Request[Any, Any, Any], stored: str) -> str | None:
    """The transfer syntax to transcode to; None for as stored. Raises NotAcceptable.

    The media type alone says HTJ2K (image/jphc); uncompressed bytes are named by their transfer syntax, since viewers say
    application/octet-stream for whatever there is.
    """
    as_stored = stored if UID(stored).is_compressed else EXPLICIT_LITTLE
    for one in accepted(request):
        syntax = one.transfer_syntax
        if syntax == as_stored or (syntax == "*" and covers(one.type, _frame_media_type(as_stored))):
            return None
        if one.type in (HTJ2K_TYPE, "*/*", "image/*") and (
            syntax in HTJ2K_SYNTAXES or (syntax, one.type) == ("*", HTJ2K_TYPE)
        ):
            return HTJ2K_SYNTAXES[0] if syntax == "*" else syntax
        if one.type in (OCTETS, "*/*") and syntax == EXPLICIT_LITTLE:
            return EXPLICIT_LITTLE
        if syntax == "*":  # what was sent before there was a choice: another type than that of the store's
            return None
    raise NotAcceptable(
        f"Frames go out as stored ({as_stored}), as HTJ2K ({', '.join(HTJ2K_SYNTAXES)}) or as {EXPLICIT_LITTLE}."
    )


async def _frames_transcoded(
    services: Services,
    actor: Actor,
    located: InstanceLocation,
    ranges: list[tuple[int, int]],
    numbers: list[int],
    syntax: str,
) -> list[bytes]:
    async with services.db.read(actor) as tx:
        [kept] = await headers(tx, [located])
    source = FrameSource(located, kept, ranges)
    if syntax == EXPLICIT_LITTLE:
        return (await _frames_made_plain(services, source, numbers))[0]
    try:
        return [await transcode_frame(services, source, n - 1) for n in numbers]
    except PixelError as error:
        raise NotRendered(str(error)) from error


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


handlers = [instances, frames]
