"""Contours: filling them gives the mask again, and the structure set is one that others accept."""

import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom import dcmread

from annotomy.dicom.rtstruct import contours
from tests.segmentations.placed_series import SEGMENTS, Placed, oblique, some_masks
from tests.segmentations.test_interchange import created, started
from tests.support.application import Application


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
