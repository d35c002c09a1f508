"""A series as one volume in patient space: headers first, pixels only when the geometry holds (dicom/geometry.py).

What the actor may not see is not there: instances come through `archive.retrieve.locate`.
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from annotomy.actor import Actor
from annotomy.archive.decode import CHILDREN, FrameSource, decode_frames, frame_sources
from annotomy.archive.retrieve import InstanceLocation, headers, locate, read_header
from annotomy.db.engine import ReadTx
from annotomy.dicom.geometry import Arrangement, GeometryError, arrange, functional_group, planes_of
from annotomy.dicom.pixels import PixelError
from annotomy.errors import Problem
from annotomy.ports import Volume
from annotomy.services import Services

MAX_VOXELS = 1 << 28
"""1 GiB as float32: 1024 slices of 512 x 512. A worker holds one volume and what a model makes of it."""
FRAMES_AT_ONCE = 8
"""Frames of one instance that are decoded by one call."""
MAX_INSTANCES = 4096
"""Headers are held together; more instances than slices of any scanner are not one volume."""


class VolumeProblem(Problem):
    """The series is not one regular volume. Choose a series whose slices are parallel, complete and equally spaced."""

    slug = "not-a-volume"
    title = "The series is not a volume"
    status = 422


class IrregularSpacing(VolumeProblem):
    """The slices are not equally spaced, or differ in pixel size. Resample or split the series first."""

    slug = "irregular-spacing"
    title = "The slices are not equally spaced"


class MissingSlices(VolumeProblem):
    """Slices are missing between others: the series was not sent completely. Send it again."""

    slug = "missing-slices"
    title = "Slices are missing"


class MixedOrientation(VolumeProblem):
    """The series holds images of several orientations, such as a scout beside its slices. Split it by orientation."""

    slug = "mixed-orientation"
    title = "The images have several orientations"


class DuplicatePosition(VolumeProblem):
    """Several images lie at one place: echoes, phases or time points in one series. Split it by them."""

    slug = "duplicate-position"
    title = "Several images lie at one place"


class GantryTilt(VolumeProblem):
    """The slices are sheared by a tilted gantry. Correct the tilt (resample) and send the result as a new series."""

    slug = "gantry-tilt"
    title = "The slices are sheared"


class VolumeTooLarge(VolumeProblem):
    """The series has more voxels than are held in memory at once; `limit_voxels` says how many. Split or downsample it."""

    slug = "volume-too-large"
    title = "The volume is too large"
    status = 413


class UndecodablePixels(VolumeProblem):
    """Pixels of the series are damaged or in a transfer syntax without a codec here. Send the series in another encoding."""

    slug = "undecodable-pixels"
    title = "The pixels cannot be decoded"


_PROBLEMS: dict[str, type[VolumeProblem]] = {
    problem.slug: problem
    for problem in (IrregularSpacing, MissingSlices, MixedOrientation, DuplicatePosition, GantryTilt, VolumeProblem)
}


@dataclass(frozen=True, slots=True)
class SourcePlane:
    """Slice k: which instance and frame it is."""

    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int | None
    """None for an instance of a single frame."""


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Everything about the volume but its values: enough to place a mask on it and to write a DICOM SEG of it."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    """Of the images; one of our own, derived from the series' UID, where they have none."""
    modality: str
    body_part: str
    shape_kji: tuple[int, int, int]
    affine_lps: NDArray[np.float64]
    planes: tuple[SourcePlane, ...]
    headers: tuple[FileDataset, ...]
    """Of each instance without pixels: in slice order, or the one multi-frame instance."""


@dataclass(frozen=True, slots=True)
class LoadedVolume:
    volume: Volume
    source: VolumeSource


async def load_source(services: Services, actor: Actor, series_instance_uid: str) -> VolumeSource:
    """The geometry alone. Raises NotFound, or a VolumeProblem that names what is wrong."""
    source, _ = await _located(services, actor, series_instance_uid)
    return source


async def load_volume(services: Services, actor: Actor, series_instance_uid: str) -> LoadedVolume:
    """The volume in modality units. Raises NotFound, or a VolumeProblem before any pixel is decoded where it can."""
    source, located = await _located(services, actor, series_instance_uid)
    values = np.empty(source.shape_kji, np.float32)
    by_uid = {at.sop_instance_uid: at for at in located}
    datasets = {str(dataset.SOPInstanceUID): dataset for dataset in source.headers}
    wanted: dict[str, list[tuple[int, int]]] = {}
    for k, plane in enumerate(source.planes):
        wanted.setdefault(plane.sop_instance_uid, []).append((k, (plane.frame_number or 1) - 1))
    try:
        at_once = asyncio.Semaphore(CHILDREN)
        frames = await frame_sources(services, actor, [by_uid[sop_instance_uid] for sop_instance_uid in wanted])

        async def decode(of: FrameSource) -> None:
            sop_instance_uid = of.at.sop_instance_uid
            async with at_once:
                await _decode_into(services, values, of, datasets[sop_instance_uid], wanted[sop_instance_uid])

        async with asyncio.TaskGroup() as group:
            for of in frames:
                group.create_task(decode(of))
    except* PixelError as errors:
        raise UndecodablePixels(str(errors.exceptions[0])) from errors
    volume = Volume(values, source.affine_lps, source.modality, source.body_part)
    return LoadedVolume(volume, source)


async def volume_instances(tx: ReadTx, series_instance_uid: str) -> list[InstanceLocation]:
    """What a volume of the series is made of, as far as the actor sees it. Raises NotFound, VolumeTooLarge."""
    located = await locate(tx, series_instance_uid=series_instance_uid)
    of_study = min(located, key=lambda at: at.id).study_instance_uid  # a copied UID may stand in another study
    located = [at for at in located if at.study_instance_uid == of_study]
    if len(located) > MAX_INSTANCES:
        raise VolumeTooLarge("The series has more instances than a volume may have.", limit_instances=MAX_INSTANCES)
    return located


async def _located(
    services: Services, actor: Actor, series_instance_uid: str
) -> tuple[VolumeSource, list[InstanceLocation]]:
    async with services.db.read(actor) as tx:
        located = await volume_instances(tx, series_instance_uid)
        kept = await headers(tx, located)
    try:
        source = await asyncio.to_thread(_source, located, kept)
    except GeometryError as error:
        raise _PROBLEMS[error.slug](str(error)) from error
    slices, rows, columns = source.shape_kji
    if slices * rows * columns > MAX_VOXELS:
        raise VolumeTooLarge("The volume has more voxels than are read at once.", limit_voxels=MAX_VOXELS)
    return source, located


def _source(located: list[InstanceLocation], kept: list[bytes]) -> VolumeSource:
    datasets = [read_header(header) for header in kept]
    planes: list[SourcePlane] = []
    places: list[Any] = []
    owners: list[int] = []
    for n, (at, dataset) in enumerate(zip(located, datasets, strict=True)):
        _require_grey_image(dataset)
        for frame_index, place in enumerate(planes_of(dataset)):
            number = frame_index + 1 if "NumberOfFrames" in dataset else None
            planes.append(SourcePlane(at.sop_instance_uid, at.sop_class_uid, number))
            places.append(place)
            owners.append(n)
    found: Arrangement = arrange(places)
    first = datasets[owners[found.order[0]]]
    in_order = list(dict.fromkeys(owners[n] for n in found.order))
    return VolumeSource(
        study_instance_uid=located[0].study_instance_uid,
        series_instance_uid=located[0].series_instance_uid,
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID", "") or _own_frame_of_reference(located[0])),
        modality=str(first.get("Modality", "") or ""),
        body_part=_body_part(first),
        shape_kji=found.shape_kji,
        affine_lps=found.affine_lps,
        planes=tuple(planes[n] for n in found.order),
        headers=tuple(datasets[n] for n in in_order),
    )


def _own_frame_of_reference(at: InstanceLocation) -> str:
    """A UUID-derived UID (PS3.5 B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, f'{at.series_instance_uid} frame of reference').int}"


def _require_grey_image(dataset: Dataset) -> None:
    if str(dataset.get("Modality", "")) in ("SEG", "RTDOSE", "PR"):
        raise GeometryError("not-a-volume", "The series holds derived objects, not images.")
    if not str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME"):
        raise GeometryError("not-a-volume", "The series holds no grey images.")
    if "Rows" not in dataset or "Columns" not in dataset:
        raise GeometryError("not-a-volume", "The series holds objects without pixels.")


def _body_part(dataset: Dataset) -> str:
    """BodyPartExamined, else the meaning of the anatomic region that enhanced objects code (PS3.3 10.5)."""
    plain = str(dataset.get("BodyPartExamined", "") or "")
    if plain or "SharedFunctionalGroupsSequence" not in dataset:
        return plain
    anatomy = dataset.SharedFunctionalGroupsSequence[0].get("FrameAnatomySequence")
    regions = anatomy[0].get("AnatomicRegionSequence") if anatomy else None
    return str(regions[0].get("CodeMeaning", "") or "") if regions else ""


async def _decode_into(
    services: Services,
    values: NDArray[np.float32],
    frames: FrameSource,
    dataset: Dataset,
    slices: list[tuple[int, int]],
) -> None:
    """The frames of one instance, by the child that decodes them; some at a time, so that a child is given little."""
    plain = "PerFrameFunctionalGroupsSequence" not in dataset
    for first in range(0, len(slices), FRAMES_AT_ONCE):
        some = slices[first : first + FRAMES_AT_ONCE]
        decoded = await decode_frames(services, frames, [frame_index for _, frame_index in some], units=plain)
        if decoded.shape[1:] != values.shape[1:]:
            raise PixelError("A frame's size is not what its header says.")
        for (k, frame_index), frame in zip(some, decoded, strict=True):
            values[k] = frame if plain else _units(dataset, frame, frame_index)


def _units(dataset: Dataset, frame: NDArray[Any], frame_index: int) -> NDArray[np.float32]:
    rescale = functional_group(dataset, frame_index, "PixelValueTransformationSequence")
    if rescale is None:
        return frame.astype(np.float32)
    slope, intercept = float(rescale.get("RescaleSlope", 1)), float(rescale.get("RescaleIntercept", 0))
    return np.asarray(frame * slope + intercept, np.float32)
