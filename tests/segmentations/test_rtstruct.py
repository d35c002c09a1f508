"""Contours: filling them gives the mask again, and the structure set is one that others accept."""

import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from annotomy.archive.volume import SourcePlane, VolumeSource
from annotomy.dicom.rtstruct import contours
from annotomy.dicom.rtstruct_read import read_rtstruct
from annotomy.segmentations.statistics import statistics_of
from annotomy.segmentations.structures import masks_of_structures
from tests.segmentations.placed_series import SEGMENTS, Placed, oblique, project_with, some_masks
from tests.segmentations.test_interchange import Client, created, started
from tests.support.application import Application
from tests.support.jobs import run_queued_jobs
from tests.support.shared_data import shared_data_folder


def filled(polygon: Sequence[Sequence[float]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre (column, row) is inside by the even-odd rule; written for these tests alone."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, np.bool_)
    for (x, y), (u, v) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y == v:
            continue
        spans = (rows > min(y, v)) & (rows <= max(y, v))
        inside ^= spans & (columns < x + (rows - y) * (u - x) / (v - y))
    return inside


@settings(deadline=None)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda s: arrays.arrays(np.bool_, s)))
def test_filling_the_contours_gives_the_mask_again(mask: NDArray[np.bool_]) -> None:
    shape = (mask.shape[0], mask.shape[1])
    again = np.zeros(shape, np.bool_)
    for polygon in contours(mask):
        part = filled([(x - 0.5, y - 0.5) for x, y in polygon], shape)
        assert part.any() and not (part & again).any(), "parts do not overlap"
        again |= part
    assert np.array_equal(again, mask)


def test_a_ring_is_one_contour_with_its_hole_joined_in() -> None:
    mask = np.ones((5, 5), np.bool_)
    mask[2, 2] = False
    [polygon] = contours(mask)
    assert np.array_equal(filled([(x - 0.5, y - 0.5) for x, y in polygon], (5, 5)), mask)
    assert contours(np.eye(2, dtype=np.bool_)) == [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_the_structure_set_lies_where_the_masks_lie(
    application: Application, placed: Placed, tmp_path: Path
) -> None:
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    data = (await client.get(f"/{segmentation_id}/export", format="rtstruct")).content
    dataset = dcmread(io.BytesIO(data))
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == [segment.label for segment in SEGMENTS]
    images = {
        item.ReferencedSOPInstanceUID
        for item in dataset.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
        .ContourImageSequence
    }
    assert len(images) == placed.shape_kji[0]
    for roi in dataset.ROIContourSequence:
        again = np.zeros(placed.shape_kji, np.bool_)
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in images
            points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
            indices = np.linalg.solve(placed.affine_lps, np.column_stack([points, np.ones(len(points))]).T)[:3].T
            k = round(float(indices[0, 2]))
            assert np.abs(indices[:, 2] - k).max() < 1e-3
            again[k] |= filled((np.rint(indices[:, :2] * 2) / 2).tolist(), placed.shape_kji[1:])
        assert np.array_equal(again, masks[roi.ReferencedROINumber])
    if shutil.which("dciodvfy") is not None:
        file = tmp_path / "structures.dcm"
        file.write_bytes(data)
        told = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        assert "RTStructureSet" in told.stdout + told.stderr
        assert not [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")], told.stderr


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_our_structure_set_is_imported_equal_and_by_itself_when_it_arrives(
    application: Application, placed: Placed
) -> None:
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    data = (await client.get(f"/{segmentation_id}/export", format="rtstruct")).content
    answer = await client.send(placed, project.id, data)
    assert answer.status_code == 201, answer.text
    again = await client.masks(answer.json()["id"])
    assert all(np.array_equal(again[number], masks[number]) for number in masks)
    for one, segment in zip(answer.json()["segments"], SEGMENTS, strict=True):
        assert (one["label"], one["color"], one["code"]["value"]) == (segment.label, segment.color, segment.code[0])
    stored = await application.client.post(
        f"/dicom-web/studies?project_id={project.id}",
        content=b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n",
        headers={**client.headers, "Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    assert stored.status_code == 200, stored.text
    await run_queued_jobs(application.services)
    newest = (await client.get("")).json()["items"][0]
    assert newest["sop_instance_uid"] == str(dcmread(io.BytesIO(data)).SOPInstanceUID)
    again = await client.masks(newest["id"])
    assert all(np.array_equal(again[number], masks[number]) for number in masks)


async def test_structures_that_do_not_belong_to_the_series_are_refused_by_what_differs(
    application: Application,
) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    segmentation_id = await created(application, project, placed, some_masks(placed.shape_kji))
    data = (await client.get(f"/{segmentation_id}/export", format="rtstruct")).content

    def space(dataset: Dataset) -> None:
        for roi in dataset.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "1.2.3"

    def image(dataset: Dataset) -> None:
        dataset.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"

    def slice_(dataset: Dataset) -> None:
        of = dataset.ROIContourSequence[0].ContourSequence
        of[0].ContourImageSequence[0].ReferencedSOPInstanceUID = of[-1].ContourImageSequence[0].ReferencedSOPInstanceUID

    def moved(step: Sequence[float]) -> Callable[[Dataset], None]:
        def change(dataset: Dataset) -> None:
            for roi in dataset.ROIContourSequence:
                for contour in roi.get("ContourSequence", []):
                    points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3) + step
                    contour.ContourData = [f"{v:.5f}" for v in points.ravel()]
                    del contour.ContourImageSequence

        return change

    def tilted(dataset: Dataset) -> None:
        data = dataset.ROIContourSequence[0].ContourSequence[0].ContourData
        data[2] = float(data[2]) + 2.5

    for change, words in (
        (space, "frame of reference"),
        (image, "references an image"),
        (slice_, "another slice"),
        (moved([0, 0, 1.25]), "between two slices"),
        (moved([0, 0, 25.0]), "outside"),
        (moved([-9.0, 0, 0]), "outside"),
        (tilted, "does not lie in a slice"),
    ):
        dataset = dcmread(io.BytesIO(data))
        change(dataset)
        answer = await client.send(placed, project.id, _bytes(dataset))
        assert answer.status_code == 422 and answer.json()["type"].endswith("mask-mismatch"), answer.text
        assert words in answer.json()["detail"]
    broken = dcmread(io.BytesIO(data))
    broken.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    answer = await client.send(placed, project.id, _bytes(broken))
    assert answer.status_code == 422 and answer.json()["type"].endswith("unreadable-masks"), answer.text


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


SMALL = {"Scar", "Borders"}
"""Below 2 ml."""


def _by_centres(area: Any, affine: NDArray[np.float64]) -> float:
    x = affine[0, 3] + affine[0, 0] * np.arange(512)
    y = affine[1, 3] + affine[1, 1] * np.arange(512)
    inside: NDArray[np.bool_] = shapely.contains_xy(area, *np.meshgrid(x, y))
    return float(np.count_nonzero(inside) * affine[0, 0] * affine[1, 1])


def test_volumes_of_a_planning_system_are_those_of_an_independent_rasteriser() -> None:
    """Each structure against shapely's polygons with the holes subtracted: their area, and for structures of few voxels, where
    the area is not what any grid can hold, the pixel centres that they contain."""
    folder = shared_data_folder() / "derived/rt-dicompyler"
    read = read_rtstruct((folder / "rtss.dcm").read_bytes())
    header = dcmread(folder / "ct.0.dcm", stop_before_pixels=True)
    assert read.referenced_series_uids == (str(header.SeriesInstanceUID),)
    heights = sorted({float(c.points_lps_mm[0, 2]) for s in read.structures for c in s.contours})
    first, step = heights[0], 3.0
    affine = np.diag([*(float(v) for v in header.PixelSpacing[::-1]), step, 1.0])
    affine[:3, 3] = [float(header.ImagePositionPatient[0]), float(header.ImagePositionPatient[1]), first]
    slices = round((heights[-1] - first) / step) + 1
    drawn = [uid for s in read.structures for c in s.contours for uid, _ in c.images]
    by_slice: dict[int, str] = {}
    for structure in read.structures:
        for contour in structure.contours:
            by_slice[round((contour.points_lps_mm[0, 2] - first) / step)] = contour.images[0][0]
    assert len(set(drawn)) == len(by_slice)
    source = VolumeSource(
        study_instance_uid=read.study_instance_uid,
        series_instance_uid=str(header.SeriesInstanceUID),
        frame_of_reference_uid=str(header.FrameOfReferenceUID),
        modality="CT",
        body_part="",
        shape_kji=(slices, int(header.Rows), int(header.Columns)),
        affine_lps=affine,
        planes=tuple(SourcePlane(by_slice.get(k, f"none {k}"), "", None) for k in range(slices)),
        headers=(),
    )
    masks, segments, _ = masks_of_structures(read, source)
    assert [segment.label for segment in segments] == [structure.label for structure in read.structures]
    compared = 0
    for structure in read.structures:
        by_k: dict[int, list[Any]] = {}
        for contour in structure.contours:
            k = round((contour.points_lps_mm[0, 2] - first) / step)
            by_k.setdefault(k, []).append(shapely.make_valid(shapely.Polygon(contour.points_lps_mm[:, :2])))
        independent = 0.0
        for polygons in by_k.values():
            area = shapely.Polygon()
            for one in sorted(polygons, key=lambda p: p.area, reverse=True):
                area = area.difference(one) if area.buffer(1e-6).contains(one) else area.union(one)
            independent += step * (area.area if structure.label not in SMALL else _by_centres(area, affine))
        ours = statistics_of(masks.counts(structure.number), affine)["volume_mm3"]
        if independent:
            compared += 1
            assert abs(ours / independent - 1) < 0.02, (structure.label, ours, independent)
        else:
            assert ours == 0
    assert compared == 9


@pytest.mark.parametrize("file", ["mock_data/rt.dcm", "mock_data/invalid_reference_rt.dcm", "empty/dummy_rt.dcm"])
async def test_broken_references_of_foreign_structure_sets_are_refused_clearly(
    application: Application, file: str
) -> None:
    """Two of five slices are here, or the frame of reference is another one: nothing is put where it does not belong."""
    folder = shared_data_folder() / "derived/rt-utils"
    images = [folder / "mock_data/ct_1.dcm", folder / "mock_data/ct_2.dcm"]
    project = await project_with(application, [image.read_bytes() for image in images])
    client = Client(application, await application.headers(project.admin.name))
    header = dcmread(images[0], stop_before_pixels=True)
    placed = Placed(study_instance_uid=str(header.StudyInstanceUID), series_instance_uid=str(header.SeriesInstanceUID))
    answer = await client.send(placed, project.id, (folder / file).read_bytes())
    assert answer.status_code == 422 and answer.json()["type"].endswith("mask-mismatch"), answer.text
    told = answer.json()["detail"]
    assert (
        ("frame of reference" in told)
        if file == "mock_data/rt.dcm"
        else ("references an image" in told or "outside" in told)
    )
