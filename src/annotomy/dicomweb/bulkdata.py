"""Bulk data of WADO-RS (PS3.18 10.4.1.1.5): the values that metadata names by BulkDataURI, whole or a range (RFC 9110 14).

An address is the attribute's tag, inside of sequences with the item's number from 1: `00880200/1/00281201`. Pixels are frames.
"""

import asyncio
import re
import secrets
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from pydicom.dataset import Dataset

from annotomy.actor import Actor
from annotomy.archive.retrieve import headers, locate, read_header
from annotomy.dicom.multipart import message_end, part_head
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.dicomweb.accept import NotAcceptable, choose
from annotomy.dicomweb.rendered import PRIVATE_DAY
from annotomy.errors import NotFound, Problem
from annotomy.services import Services

OCTETS = "application/octet-stream"
MAX_DEPTH = 16


class RangeNotSatisfiable(Problem):
    """The range asked for begins behind the end of the value; `Content-Range` would be `bytes */length`."""

    slug = "range-not-satisfiable"
    title = "There is nothing in this range"
    status = 416


@get(
    "/dicom-web/studies/{study_instance_uid:str}/series/{series_instance_uid:str}/instances/{sop_instance_uid:str}"
    "/bulkdata/{bulkdata_path:path}",
    operation_id="RetrieveBulkData",
    opt={
        "permission": "study.read",
        "audit": "study.viewed",
        "gives": {200: ["multipart/related", OCTETS], 206: [OCTETS]},
        "problems": [NotFound, NotAcceptable, RangeNotSatisfiable],
    },
    tags=["dicomweb"],
)
async def bulkdata(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """A value of an instance that is not in its metadata."""
    chosen = choose(request, [OCTETS])
    uids = {name: value for name, value in request.path_params.items() if name.endswith("_uid")}
    async with services.db.read(actor) as tx:
        located = await locate(tx, **uids)
        [kept] = await headers(tx, located)
    value = await asyncio.to_thread(_value, kept, str(request.path_params["bulkdata_path"]))
    if chosen.multipart:
        boundary = secrets.token_hex(16)
        body = part_head(boundary, [("Content-Type", OCTETS)], first=True) + value + message_end(boundary)
        kind = f'multipart/related; type="{OCTETS}"; boundary={boundary}'
        return Response(body, media_type=kind, headers=PRIVATE_DAY)
    served = PRIVATE_DAY | {"Accept-Ranges": "bytes"}
    span = _range(request.headers.get("range"), len(value))
    if span is None:
        return Response(value, media_type=OCTETS, headers=served)
    start, end = span
    served |= {"Content-Range": f"bytes {start}-{end - 1}/{len(value)}"}
    return Response(value[start:end], status_code=206, media_type=OCTETS, headers=served)


def bulk_path(header: Dataset, element: Any) -> str:
    """The address of an element of this data set, wherever in it it stands."""
    tag = f"{int(element.tag):08X}"
    if element.tag in header and header[element.tag] is element:
        return tag
    return next((path for path, one in _nested(header, "", 0) if one is element), tag)


def _nested(dataset: Dataset, prefix: str, depth: int) -> Any:
    for tag in [*dataset.keys()]:  # a data set iterates over elements, and converts them
        try:
            element = dataset[tag]
        except UNREADABLE:
            continue
        if element.VR != "SQ" or depth > MAX_DEPTH:
            yield f"{prefix}{int(tag):08X}", element
            continue
        for number, item in enumerate(element.value or [], 1):
            yield from _nested(item, f"{prefix}{int(tag):08X}/{number}/", depth + 1)


def _value(kept: bytes, path: str) -> bytes:
    steps = path.strip("/").split("/")
    nowhere = NotFound("There is no such bulk data in the instance.")
    if (
        len(steps) % 2 == 0
        or len(steps) > 2 * MAX_DEPTH
        or not all(re.fullmatch(r"[0-9]{1,6}" if n % 2 else r"[0-9A-Fa-f]{8}", one) for n, one in enumerate(steps))
    ):
        raise nowhere
    try:
        dataset = read_header(kept)
        for sequence, number in zip(steps[:-1:2], steps[1::2], strict=True):
            dataset = dataset[int(sequence, 16)].value[int(number) - 1] if int(number) else None
            if dataset is None:
                raise nowhere
        value = dataset[int(steps[-1], 16)].value
    except UNREADABLE as error:
        raise nowhere from error
    if not isinstance(value, bytes):
        raise nowhere
    return value


def _range(text: str | None, length: int) -> tuple[int, int] | None:
    """One range; others and what is no range are answered with the whole, as RFC 9110 allows. Raises RangeNotSatisfiable."""
    found = re.fullmatch(r"bytes=([0-9]{0,15})-([0-9]{0,15})", text or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, length - int(last))
    end = min(length, int(last) + 1) if first and last else length
    if start >= length:
        raise RangeNotSatisfiable("The value is shorter.", length_bytes=length)
    return None if end <= start else (start, end)


handlers = [bulkdata]
