"""Retrieve: where instances lie, their headers and frames. Access is decided here; edges only shape the answer."""

import asyncio
import io
import struct
from dataclasses import dataclass
from typing import Any

import zstandard
from pydicom import dcmread
from pydicom.dataset import FileDataset

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.errors import NotFound
from annotomy.projects.access import visible_instances
from annotomy.services import Services

MAX_HEADER_BYTES = 256 << 20
"""A header grows to at most this when it is unpacked; the store operation keeps none larger."""


@dataclass(frozen=True, slots=True)
class InstanceLocation:
    id: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    number_of_frames: int
    blob_address: str
    blob_size: int


_SELECT = (
    "select i.id, st.study_instance_uid, se.series_instance_uid, i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid,"
    " i.number_of_frames, i.blob_address, i.blob_size"
)
_FROM = " from instances i join series se on se.id = i.series_id join studies st on st.id = i.study_id"


async def locate(
    tx: ReadTx,
    *,
    patient_id: str | None = None,
    study_instance_uid: str | list[str] | None = None,
    series_instance_uid: str | list[str] | None = None,
    sop_instance_uid: str | list[str] | None = None,
) -> list[InstanceLocation]:
    """The instances under these keys that the actor may see, in series and instance order. Raises NotFound for none.

    Of an instance that is kept more than once (docs/decisions/0010) it is the one that came first of those that the actor sees.
    """
    conditions, values = [visible_instances("i")], list[Any]()
    for column, key in (
        ("st.patient_id", patient_id),
        ("st.study_instance_uid", study_instance_uid),
        ("se.series_instance_uid", series_instance_uid),
        ("i.sop_instance_uid", sop_instance_uid),
    ):
        if key is not None:
            values.append(key)
            at = f"${len(values)}"
            conditions.append(f"{column} = any({at})" if isinstance(key, list) else f"{column} = {at}")
    assert values, "at least one key"
    rows = await tx.fetch(
        f"{_SELECT}, se.id as series_id, i.instance_number{_FROM} where {' and '.join(conditions)}"
        " order by se.series_number nulls last, se.id, i.instance_number nulls last, i.id",
        *values,
    )
    if not rows:
        raise NotFound("There is no such study, series or instance.")
    return [InstanceLocation(*(row[name] for name in InstanceLocation.__slots__)) for row in _each_once(rows)]


def _each_once(rows: list[Any]) -> list[Any]:
    """Of what is kept in several holdings: each instance once, and each series in one piece, in the order of its instances."""
    instances: dict[tuple[str, str], int] = {}
    places: dict[tuple[str, str], tuple[int, int]] = {}
    for n, row in enumerate(rows):
        study, series = row["study_instance_uid"], row["series_instance_uid"]
        key = study, row["sop_instance_uid"]
        instances[key] = min(row["id"], instances.get(key, row["id"]))
        first = places.get((study, series))
        if first is None or row["series_id"] < first[0]:
            places[study, series] = row["series_id"], n
    if len(instances) == len(rows) and len(places) == len({row["series_id"] for row in rows}):
        return rows
    kept = [row for row in rows if instances[row["study_instance_uid"], row["sop_instance_uid"]] == row["id"]]

    def place(row: Any) -> tuple[int, bool, int, int]:
        number = row["instance_number"]
        _, first = places[row["study_instance_uid"], row["series_instance_uid"]]
        return first, number is None, number or 0, row["id"]

    return sorted(kept, key=place)


@dataclass(frozen=True, slots=True)
class FrameSource:
    """An instance whose frames may be decoded: where it lies, its header (zstd), its table of frames.

    The table has (offset, length) of each frame in the blob; empty when frames are reached only by reading the whole file.
    """

    at: InstanceLocation
    header: bytes
    ranges: list[tuple[int, int]]


async def locate_frames(
    tx: ReadTx, *, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> tuple[InstanceLocation, list[tuple[int, int]]]:
    """One instance that the actor may see and its table of frames. Raises NotFound."""
    at, row = await _locate_one(tx, "h.frames", study_instance_uid, series_instance_uid, sop_instance_uid)
    return at, _table(row["frames"])


async def locate_source(
    tx: ReadTx, *, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> FrameSource:
    """One instance that the actor may see, ready to be decoded. Raises NotFound."""
    at, row = await _locate_one(tx, "h.frames, h.header", study_instance_uid, series_instance_uid, sop_instance_uid)
    return FrameSource(at, row["header"], _table(row["frames"]))


async def _locate_one(
    tx: ReadTx, columns: str, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> tuple[InstanceLocation, Any]:
    row = await tx.fetchrow(
        f"{_SELECT}, {columns}{_FROM} join instance_headers h on h.instance_id = i.id where {visible_instances('i')}"
        " and st.study_instance_uid = $1 and se.series_instance_uid = $2 and i.sop_instance_uid = $3 order by i.id limit 1",
        study_instance_uid, series_instance_uid, sop_instance_uid,
    )  # fmt: skip
    if row is None:
        raise NotFound("There is no such study, series or instance.")
    return InstanceLocation(*(row[name] for name in InstanceLocation.__slots__)), row


def _table(packed: bytes) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("<QQ", packed))


async def headers(tx: ReadTx, locations: list[InstanceLocation]) -> list[bytes]:
    """The stored header of each, still compressed."""
    rows = await tx.fetch(
        "select instance_id, header from instance_headers where instance_id = any($1)", [at.id for at in locations]
    )
    by_id = {row["instance_id"]: row["header"] for row in rows}
    return [by_id[at.id] for at in locations]


def read_header(compressed: bytes) -> FileDataset:
    """The dataset without its pixels."""
    plain = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=MAX_HEADER_BYTES)
    return dcmread(io.BytesIO(plain), stop_before_pixels=True)


async def frame_ranges(tx: ReadTx, location: InstanceLocation) -> list[tuple[int, int]]:
    """(offset, length) of each frame in the blob; empty when frames are reached only by reading the whole file."""
    packed: bytes = await tx.fetchval("select frames from instance_headers where instance_id = $1", location.id)
    return _table(packed)


async def frame_tables(tx: ReadTx, locations: list[InstanceLocation]) -> list[list[tuple[int, int]]]:
    """As frame_ranges, of many."""
    rows = await tx.fetch(
        "select instance_id, frames from instance_headers where instance_id = any($1)", [at.id for at in locations]
    )
    by_id = {row["instance_id"]: row["frames"] for row in rows}
    return [_table(by_id[at.id]) for at in locations]


async def read_instance(services: Services, location: InstanceLocation) -> bytes:
    return await services.blobs.read(location.blob_address)


async def read_dataset(services: Services, location: InstanceLocation) -> FileDataset:
    """The whole instance, pixels undecoded."""
    data = await read_instance(services, location)
    return await asyncio.to_thread(lambda: dcmread(io.BytesIO(data)))


async def locate_one(services: Services, actor: Actor, sop_instance_uid: str) -> InstanceLocation:
    async with services.db.read(actor) as tx:
        return min(await locate(tx, sop_instance_uid=sop_instance_uid), key=lambda at: at.id)
