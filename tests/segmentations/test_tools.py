"""Tools, measures and agreement: the arithmetic against plain definitions, and over HTTP each tool a new version."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from annotomy.segmentations.agreement import agreement
from annotomy.segmentations.bricks import of_masks
from annotomy.segmentations.measures import measures
from annotomy.segmentations.tools import (
    Combine,
    FillHoles,
    Grow,
    Interpolate,
    KeepLargest,
    Shrink,
    Smooth,
    Tool,
    apply,
)
from tests.segmentations.placed_series import Placed, add_member, oblique, some_masks
from tests.segmentations.test_interchange import created, started
from tests.support.application import Application

SHAPE = (19, 7, 8)
solids = arrays.arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))
AFFINE = Placed(spacing_kji_mm=(2.5, 0.75, 0.5)).affine_lps
SPACING = np.array([2.5, 0.75, 0.5])


def used(tool: Tool, mask: NDArray[np.bool_], other: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    masks = of_masks({1: mask} | ({2: other} if other is not None else {}), shape)
    made = type(masks)(shape, apply(tool, masks, 1, AFFINE))
    return made.mask(1)


def distances(of: NDArray[np.bool_], to: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each voxel of the one to the nearest of the other, by asking them all."""
    a, b = np.argwhere(of) * SPACING, np.argwhere(to) * SPACING
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)).min(axis=1)


def bordering(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    neighbours = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
    return mask & ~np.logical_and.reduce(neighbours)


@settings(deadline=None, max_examples=25)
@given(solids, solids)
def test_agreement_is_what_its_definition_says(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    found = agreement(of_masks({1: a}, SHAPE), 1, of_masks({5: b}, SHAPE), 5, AFFINE, 1.0)
    both, either = np.count_nonzero(a & b), np.count_nonzero(a | b)
    assert found.dice == pytest.approx(2 * both / (a.sum() + b.sum()) if either else 1.0, abs=1e-12)
    assert found.iou == pytest.approx(both / either if either else 1.0, abs=1e-12)
    assert found.volume_difference_mm3 == pytest.approx((int(a.sum()) - int(b.sum())) * 2.5 * 0.75 * 0.5)
    if not a.any() or not b.any():
        assert found.hausdorff_mm is None and found.hausdorff95_mm is None
        return
    assert found.hausdorff_mm == pytest.approx(max(distances(a, b).max(), distances(b, a).max()), abs=1e-9)
    there, back = distances(bordering(a), bordering(b)), distances(bordering(b), bordering(a))
    assert found.hausdorff95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
    near = (there <= 1.0).sum() + (back <= 1.0).sum()
    assert found.surface_dice == pytest.approx(near / (len(there) + len(back)), abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(solids)
def test_measures_are_what_their_definitions_say(mask: NDArray[np.bool_]) -> None:
    found = measures(of_masks({1: mask}, SHAPE), 1, AFFINE)
    points = np.argwhere(mask) * SPACING
    longest = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2)).max() if len(points) else 0.0
    assert found.longest_diameter_mm == pytest.approx(longest, abs=1e-9)
    assert found.slice_areas_mm2 == pytest.approx(
        {k: float(plane.sum() * 0.75 * 0.5) for k, plane in enumerate(mask) if plane.any()}
    )
    assert (found.parts == 0) == (not mask.any())


def test_flat_and_thin_segments_have_a_diameter() -> None:
    flat, thin = np.zeros((20, 30, 40), np.bool_), np.zeros((20, 30, 40), np.bool_)
    flat[7, 2:20, 3:30], thin[:, 4, 5] = True, True
    assert measures(of_masks({1: flat}, flat.shape), 1, AFFINE).longest_diameter_mm == pytest.approx(
        np.hypot(17 * 0.75, 26 * 0.5)
    )
    wide = np.zeros((100, 3, 3), np.bool_)
    wide[:, 1, 1] = True
    assert measures(of_masks({1: wide}, wide.shape), 1, AFFINE).longest_diameter_mm == pytest.approx(99 * 2.5)
    assert measures(of_masks({1: thin}, thin.shape), 1, AFFINE).parts == 1


@settings(deadline=None, max_examples=25)
@given(solids, st.floats(0.4, 3.0))
def test_growing_and_shrinking_go_as_far_as_they_say(mask: NDArray[np.bool_], by_mm: float) -> None:
    grown, shrunk = used(Grow(by_mm), mask), used(Shrink(by_mm), mask)
    if not mask.any():
        assert not grown.any() and not shrunk.any()
        return
    everywhere = np.ones(SHAPE, np.bool_)
    near = distances(everywhere, mask).reshape(SHAPE)
    assert np.array_equal(grown, near <= by_mm + 1e-6)
    beyond = np.pad(mask, 8)
    gap = distances(mask, ~mask) if not mask.all() else None
    if gap is not None:
        edge = np.argwhere(~beyond) * SPACING
        inside = (np.argwhere(mask) + 8) * SPACING
        far = np.sqrt(((inside[:, None] - edge[None]) ** 2).sum(axis=2)).min(axis=1)
        expected = np.zeros(SHAPE, np.bool_)
        expected[mask] = far > by_mm + 1e-6
        assert np.array_equal(shrunk, expected)


@settings(deadline=None, max_examples=20)
@given(solids, solids)
def test_combining_is_boolean(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    for operation, expected in (
        ("union", a | b),
        ("intersection", a & b),
        ("difference", a & ~b),
        ("exclusive", a ^ b),
    ):
        assert np.array_equal(used(Combine(operation, 2), a, b), expected), operation


def test_holes_are_filled_the_largest_part_is_kept_and_slices_are_interpolated() -> None:
    ball = np.zeros((20, 21, 22), np.bool_)
    ball[3:12, 4:14, 5:15] = True
    hollow = ball.copy()
    hollow[5:9, 6:10, 7:11] = False
    assert np.array_equal(used(FillHoles(), hollow), ball)
    tunnel = ball.copy()
    tunnel[:, 7, 7] = False
    assert np.array_equal(used(FillHoles(), tunnel), tunnel) and np.array_equal(
        used(FillHoles(by_slice=True), tunnel), ball
    )
    dust = ball.copy()
    dust[17, 1, 1] = dust[18, 2, 2] = True
    assert np.array_equal(used(KeepLargest(), dust), ball)
    sparse = ball.copy()
    sparse[4:11] = False
    assert np.array_equal(used(Interpolate(), sparse), ball)
    cone = np.zeros_like(ball)
    cone[2, 3:17, 3:17], cone[12, 9:11, 9:11] = True, True
    sizes = np.count_nonzero(used(Interpolate(), cone), axis=(1, 2))[2:13]
    assert np.all(np.diff(sizes) <= 0) and sizes[0] > sizes[5] > sizes[10]
    rough = ball.copy()
    rough[2, 8, 8] = True
    smooth = used(Smooth(0.6), rough)
    assert not smooth[2, 8, 8] and smooth[6, 8, 9]


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_a_tool_makes_a_version_that_is_measured_and_compared(application: Application, placed: Placed) -> None:
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    at = f"/api/v1/segmentations/{segmentation_id}"

    async def use(version: int, headers: dict[str, str], **tool: Any) -> Any:
        body = {"segment_number": 1, "tool": tool}
        return await application.client.post(f"{at}/tools", json=body, headers={**headers, "If-Match": f'"{version}"'})

    made = await use(1, client.headers, tool="combine", operation="difference", with_segment=2)
    assert made.status_code == 201 and made.json()["version"] == 2, made.text
    found = await client.masks(segmentation_id)
    assert np.array_equal(found[1], masks[1] & ~masks[2]) and np.array_equal(found[2], masks[2])
    [newest, _] = (await client.get(f"/{segmentation_id}/versions")).json()["items"]
    assert newest["why"] == "combine"
    compared = (await client.get(f"/{segmentation_id}/agreement", segment_number=1, version=1, other_version=2)).json()
    both = np.count_nonzero(masks[1] & found[1])
    assert compared["dice"] == pytest.approx(2 * both / (masks[1].sum() + found[1].sum()))
    assert compared["hausdorff_mm"] > 0
    measured = (await client.get(f"/{segmentation_id}/measures", segment_number=2)).json()
    k, j, i = (n - 1 for n in (2, 5, 5))
    spans = np.array([k, j, i]) * placed.spacing_kji_mm
    assert measured["longest_diameter_mm"] == pytest.approx(float(np.linalg.norm(spans))) and measured["parts"] == 1
    assert (await use(1, client.headers, tool="fill_holes")).status_code == 412
    assert (await use(2, client.headers, tool="grow", by_mm=1000)).status_code == 400
    reader = await add_member(application, project, "reader", "viewer")
    assert (await use(2, await application.headers(reader.name), tool="fill_holes")).status_code == 403
    assert (await use(2, await application.headers("stranger"), tool="fill_holes")).status_code == 404


def test_a_server_process_takes_masks_in_without_scipy() -> None:
    code = (
        "import sys, annotomy.app, numpy\n"
        "from annotomy.segmentations.bricks import of_labels\n"
        "assert of_labels(numpy.ones((2, 3, 4), int), [1]).bricks\n"
        "print([name for name in ('scipy.ndimage', 'scipy.spatial') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
