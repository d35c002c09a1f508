"""Metadata of WADO-RS (PS3.18 10.4.1.1.2): the attributes of every instance as DICOM JSON, without pixels.

An instance never changes, so the answer is named by what it is made of: who has it is told so, and what was made once is
kept for a while. Access is decided for every request, before that.
"""

import asyncio
import gzip
from typing import Any, Final

import zstandard
from litestar import Request, Response, get
from litestar.di import NamedDependency
from pydicom.uid import UID

from annotomy.actor import Actor
from annotomy.archive.retrieve import MAX_HEADER_BYTES, InstanceLocation, headers, locate
from annotomy.dicom.header_json import HeaderJson
from annotomy.dicomweb.bulkdata import bulk_path
from annotomy.http.content_cache import ContentCache, content_key, entity_tag, is_current
from annotomy.http.openapi import per_level
from annotomy.services import Services

DICOM_JSON = "application/dicom+json"
BULK_THRESHOLD_BYTES = 1024
"""Larger binary values are told by BulkDataURI; lookup tables stay inline, since viewers need them (PS3.18 F.2.7)."""
CACHE_BYTES: Final = 24 << 20
"""Of each process, packed: a series of 300 slices takes some 100 KB."""
REVALIDATED = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
"""A browser may keep it and asks each time whether it may still see it."""
_bodies = ContentCache(CACHE_BYTES)


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
    """The attributes of every instance, without pixels. `If-None-Match` is answered by 304 where nothing changed."""
    async with services.db.read(actor) as tx:
        located = await locate(tx, **request.path_params)
        key = content_key([[at.blob_address, at.sop_instance_uid, at.series_instance_uid] for at in located])
        told = REVALIDATED | {"ETag": entity_tag(key)}
        if is_current(request.headers.get("if-none-match"), told["ETag"]):
            return Response(b"", status_code=304, headers=told)
        packed = _bodies.get(key)
        kept = await headers(tx, located) if packed is None else []
    plain = None
    if packed is None:
        plain, packed = await asyncio.to_thread(_made, located, kept)
        _bodies.put(key, packed)
    body, encoding = await _as_accepted(request.headers.get("accept-encoding", ""), key, plain, packed)
    if encoding:
        told["Content-Encoding"] = encoding
    return Response(body, media_type=DICOM_JSON, headers=told)


async def _as_accepted(accepts: str, key: str, plain: bytes | None, packed: bytes) -> tuple[bytes, str]:
    offered = {one.partition(";")[0].strip() for one in accepts.lower().split(",") if not one.endswith(";q=0")}
    if "zstd" in offered:
        return packed, "zstd"
    if "gzip" not in offered:
        return plain if plain is not None else await asyncio.to_thread(_unpacked, packed), ""
    zipped = _bodies.get(f"{key} gzip")
    if zipped is None:
        zipped = await asyncio.to_thread(lambda: gzip.compress(plain or _unpacked(packed), 1, mtime=0))
        _bodies.put(f"{key} gzip", zipped)
    return zipped, "gzip"


def _made(located: list[InstanceLocation], kept: list[bytes]) -> tuple[bytes, bytes]:
    """Plain, and packed by zstd."""
    body = metadata_json(located, kept)
    return body, zstandard.ZstdCompressor(level=1).compress(body)


def _unpacked(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(packed)  # our own, whose size it tells


def metadata_json(located: list[InstanceLocation], kept: list[bytes]) -> bytes:
    encoder, decompressor = HeaderJson(bulk_path, BULK_THRESHOLD_BYTES), zstandard.ZstdDecompressor()
    items: list[bytes] = []
    for at, header in zip(located, kept, strict=True):
        compressed = UID(at.transfer_syntax_uid).is_compressed
        items.append(
            encoder.encode(
                decompressor.decompress(header, max_output_size=MAX_HEADER_BYTES),
                base=f"/dicom-web/studies/{at.study_instance_uid}/series/{at.series_instance_uid}"
                f"/instances/{at.sop_instance_uid}",
                # Frames that are not compressed go out as little endian bytes, RGB where their chroma was halved.
                sent_as=at.transfer_syntax_uid if compressed else "1.2.840.10008.1.2.1",
                half_chroma_as_rgb=not compressed,
                frames=bool(at.number_of_frames),
            )
        )
    return b"[" + b",".join(items) + b"]"


handlers = [metadata]
