"""A version in the forms that other programs read. Made from the bricks when asked for, in a thread."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from annotomy.actor import Actor
from annotomy.archive.retrieve import locate
from annotomy.archive.volume import VolumeSource, load_source
from annotomy.dicom.rtstruct import ImageReference, Structure, write_rtstruct
from annotomy.dicom.seg import SegForm
from annotomy.segmentations import nifti_file, nrrd_file, png_file, query
from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet
from annotomy.segmentations.interchange import FileSegment, LabelGrid, layers_of
from annotomy.segmentations.query import Row, affine_of
from annotomy.segmentations.seg_file import seg_of
from annotomy.segmentations.segment import NewSegment
from annotomy.segmentations.service import seg_identity
from annotomy.services import Services

DICOM = "application/dicom"


@dataclass(frozen=True, slots=True)
class Exported:
    media_type: str
    file_name: str
    body: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Asked:
    services: Services
    actor: Actor
    row: Row
    masks: MaskSet


async def export_segmentation(
    services: Services,
    actor: Actor,
    segmentation_id: UUID,
    form: str,
    *,
    version: int | None = None,
    segment_number: int | None = None,
) -> Exported:
    """`form` is a key of FORMS. Raises NotFound, or MaskMismatch where the form cannot hold what is there."""
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, segmentation_id, version)
        if form == "seg" and row["sop_instance_uid"] and segment_number is None:
            [kept] = await locate(
                tx, study_instance_uid=row["study_instance_uid"], sop_instance_uid=row["sop_instance_uid"]
            )
            return Exported(DICOM, _file_name(row, ".dcm"), services.blobs.stream(kept.blob_address))
        masks = await query.read_masks(tx, row, None if segment_number is None else [segment_number])
    if segment_number is not None:
        row = row | {"segments": query.segments_named(row, [segment_number])}
    write, media_type, suffix = FORMS[form]
    data = await write(_Asked(services, actor, row, masks))
    return Exported(media_type, _file_name(row, suffix), _pieces(data))


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


def _file_name(row: Row, suffix: str) -> str:
    """From the label, without what file systems and headers dislike; never from the patient."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", row["label"]).strip("-").lower()[:40]
    return f"{words or 'segmentation'}-v{row['version']}{suffix}"


async def _source(asked: _Asked) -> VolumeSource:
    return await load_source(asked.services, asked.actor, asked.row["series_instance_uid"])


async def _binary_seg(asked: _Asked) -> bytes:
    source = await _source(asked)
    return await asyncio.to_thread(seg_of_version, asked.row, asked.masks, source)


async def _labelmap_seg(asked: _Asked) -> bytes:
    source = await _source(asked)
    return await asyncio.to_thread(seg_of_version, asked.row, asked.masks, source, "LABELMAP")


async def _fractional_seg(asked: _Asked) -> bytes:
    source = await _source(asked)
    return await asyncio.to_thread(seg_of_version, asked.row, asked.masks, source, "FRACTIONAL")


def seg_of_version(row: Row, masks: MaskSet, source: VolumeSource, form: SegForm = "BINARY") -> bytes:
    """The DICOM SEG of the version in `row`."""
    identity = seg_identity(row["id"], row["version"], row["label"], row["made_at"], row["made_by"], form=form)
    return seg_of(masks, segments_of(row), source, identity, form)


async def _nifti(asked: _Asked) -> bytes:
    return await asyncio.to_thread(lambda: nifti_file.write_nifti(_grid(asked)))


async def _nrrd(asked: _Asked) -> bytes:
    return await asyncio.to_thread(lambda: nrrd_file.write_nrrd(_grid(asked)))


async def _rtstruct(asked: _Asked) -> bytes:
    source = await _source(asked)
    return await asyncio.to_thread(_structures, asked, source)


def _structures(asked: _Asked, source: VolumeSource) -> bytes:
    row = asked.row
    return write_rtstruct(
        header=source.headers[0],
        images=[ImageReference(p.sop_class_uid, p.sop_instance_uid, p.frame_number) for p in source.planes],
        series_instance_uid=source.series_instance_uid,
        frame_of_reference_uid=source.frame_of_reference_uid,
        affine_lps=affine_of(row),
        structures=[
            Structure(s.number, s.label, s.code, s.color, s.algorithm is not None, _slices(asked.masks, s.number))
            for s in segments_of(row)
        ],
        identity=seg_identity(row["id"], row["version"], row["label"], row["made_at"], row["made_by"], form="RTSTRUCT"),
    )


def _slices(masks: MaskSet, segment_number: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    for index, slab in masks.slabs(segment_number):
        for k in np.flatnonzero(slab.any(axis=(1, 2))):
            yield index * BRICK_SLICES + int(k), slab[k]


async def _png(asked: _Asked) -> bytes:
    source = await _source(asked)
    uids = [plane.sop_instance_uid for plane in source.planes]
    return await asyncio.to_thread(lambda: png_file.write_pngs(_grid(asked), uids))


def _grid(asked: _Asked) -> LabelGrid:
    segments = segments_of(asked.row)
    return LabelGrid(
        layers_of(asked.masks, [segment.number for segment in segments]),
        affine_of(asked.row),
        tuple(FileSegment(s.number, s.label, s.code, s.category, s.color, s.algorithm) for s in segments),
    )


def segments_of(row: Row) -> list[NewSegment]:
    """The segments of a version as a new segmentation would name them."""
    return [
        NewSegment(
            number=segment["segment_number"],
            label=segment["label"],
            code=_coded(segment["code"]),
            color=segment["color"],
            category=_coded(segment["category"]),
            algorithm=(segment["algorithm"]["name"], segment["algorithm"]["version"]) if segment["algorithm"] else None,
        )
        for segment in row["segments"]
    ]


def _coded(code: dict[str, str]) -> tuple[str, str, str]:
    return code["value"], code["scheme"], code["meaning"]


FORMS: dict[str, tuple[Callable[[_Asked], Awaitable[bytes]], str, str]] = {
    "seg": (_binary_seg, DICOM, ".dcm"),
    "labelmap-seg": (_labelmap_seg, DICOM, ".labelmap.dcm"),
    "fractional-seg": (_fractional_seg, DICOM, ".fractional.dcm"),
    "nifti": (_nifti, nifti_file.MEDIA_TYPE, nifti_file.SUFFIX),
    "nrrd": (_nrrd, nrrd_file.MEDIA_TYPE, nrrd_file.SUFFIX),
    "rtstruct": (_rtstruct, DICOM, ".rtstruct.dcm"),
    "png": (_png, png_file.MEDIA_TYPE, png_file.SUFFIX),
}
"""What writes it, its media type and the end of its file name."""
