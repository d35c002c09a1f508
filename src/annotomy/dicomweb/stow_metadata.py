"""STOW-RS of metadata and bulk data (PS3.18 10.5.1.1.2, 8.7.3): parts put together into files, stored like any other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from annotomy.archive.errors import NotDicom
from annotomy.archive.store import Incoming, StoreOutcome
from annotomy.dicom.assemble import AssembleError, Bulk, assemble
from annotomy.dicom.multipart import Part
from annotomy.dicom.native_xml import json_of_xml
from annotomy.errors import BadRequest, TooLarge

DICOM_JSON, DICOM_XML = "application/dicom+json", "application/dicom+xml"
METADATA_TYPES: Final = (DICOM_JSON, DICOM_XML)
MAX_BYTES: Final = 64 << 20
"""Of one request: its parts are in memory together. Larger instances are sent as application/dicom, which streams."""
MAX_INSTANCES: Final = 10_000
_EXPLICIT = "1.2.840.10008.1.2.1"
_DEFAULT_SYNTAX: Final = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "application/octet-stream": _EXPLICIT,
}
"""PS3.18 Table 8.7.3-5: what a media type is without its parameter."""


async def files_of(parts: AsyncIterator[Part], refused: list[StoreOutcome]) -> AsyncIterator[Incoming]:
    """The instances of a request. What cannot be put together goes to `refused`, the others go on. Raises BadRequest, TooLarge."""
    items: list[Any] = []
    bulk: dict[str, Bulk] = {}
    size = 0
    async for part in parts:
        kind, parameters = _media_type(part.headers.get("content-type", ""))
        body = bytearray()
        async for piece in part.body:
            size += len(piece)
            if size > MAX_BYTES:
                raise TooLarge(
                    "Metadata and bulk data are over the limit; send application/dicom.", limit_bytes=MAX_BYTES
                )
            body += piece
        if kind in METADATA_TYPES:
            items += await asyncio.to_thread(_metadata, kind, bytes(body))
            if len(items) > MAX_INSTANCES:
                raise TooLarge(f"One request describes at most {MAX_INSTANCES} instances.")
            continue
        location = part.headers.get("content-location", "")
        if not location:
            raise BadRequest("A part with bulk data has a Content-Location, which its BulkDataURI names.")
        syntax = parameters.get("transfer-syntax") or _DEFAULT_SYNTAX.get(kind, _EXPLICIT)
        held = bulk.setdefault(location, Bulk([], syntax))
        held.pieces.append(bytes(body))
    if not items:
        raise BadRequest("The request has no metadata.")
    for number, item in enumerate(items, 1):
        name = f"instance {number}"
        try:
            data = await asyncio.to_thread(assemble, _checked(item), bulk)
        except AssembleError as error:
            refused.append(_refusal(name, item, str(error)))
        else:
            yield Incoming(name, data=data)


def _metadata(kind: str, body: bytes) -> list[Any]:
    try:
        if kind == DICOM_XML:
            return [json_of_xml(body)]
        found: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"A metadata part cannot be read as {kind}.") from error
    return found if isinstance(found, list) else [found]


def _checked(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict) or not all(isinstance(value, dict) for value in item.values()):  # pyright: ignore[reportUnknownVariableType]
        raise AssembleError("The metadata is no data set.")
    return item  # pyright: ignore[reportUnknownVariableType]


def _refusal(name: str, item: Any, why: str) -> StoreOutcome:
    return StoreOutcome(
        name,
        "refused",
        sop_class_uid=_uid(item, "00080016"),
        sop_instance_uid=_uid(item, "00080018"),
        problem=NotDicom(why),
    )


def _uid(item: Any, tag: str) -> str:
    """What the metadata says, for the answer; nothing where it says none."""
    try:
        return str(item[tag]["Value"][0])[:64]
    except (TypeError, LookupError):
        return ""


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    kind, *rest = (part.strip() for part in text.split(";"))
    parameters = {
        name.strip().lower(): value.strip().strip('"') for name, _, value in (one.partition("=") for one in rest)
    }
    return kind.lower() or "application/octet-stream", parameters


def asked_type(content_type: str) -> str:
    """The `type` of multipart/related: that of its root part."""
    return _media_type(content_type)[1].get("type", "application/dicom").lower()
