"""The random walker: on balls whose truth is known, and on a real CT with the truth of people."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from annotomy.interactive import random_walker
from annotomy.interactive.random_walker import Hints, segment
from tests.interactive.phantom import FIRST, SECOND, SHAPE_KJI, SPACING_KJI, ball, dice, values
from tests.support.shared_data import shared_data_folder


def _hints(
    on_object: list[tuple[int, int, int]], background: Sequence[tuple[int, int, int]] = (), **fields: object
) -> Hints:
    at = np.array([*on_object, *background], np.int64).reshape(-1, 3)
    return Hints(at, np.arange(len(at)) < len(on_object), **fields)  # pyright: ignore[reportArgumentType]


def _whole(shape: tuple[int, ...], found: tuple[random_walker.Box, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    box, mask = found
    whole = np.zeros(shape, np.bool_)
    whole[tuple(slice(a, b) for a, b in zip(*box, strict=True))] = mask
    return whole


AROUND = [(12, 20, 38), (12, 38, 20), (12, 4, 20), (12, 20, 4), (5, 20, 20), (19, 20, 20)]


def test_a_point_inside_and_some_outside_find_the_ball_and_not_its_twin() -> None:
    found = _whole(SHAPE_KJI, segment(values().astype(np.float32), SPACING_KJI, _hints([FIRST], AROUND)))
    assert dice(found, ball(FIRST)) > 0.9
    assert not np.any(found & ball(SECOND))


def test_a_box_needs_no_hint_of_the_background() -> None:
    hints = _hints([SECOND], box=((7, 31, 29), (18, 62, 60)))
    found = _whole(SHAPE_KJI, segment(values().astype(np.float32), SPACING_KJI, hints))
    assert dice(found, ball(SECOND)) > 0.9


def test_what_was_pointed_at_is_as_it_was_said() -> None:
    wrong = [(12, 20, 24)]  # inside of the ball, but somebody says that it is not
    found = _whole(SHAPE_KJI, segment(values().astype(np.float32), SPACING_KJI, _hints([FIRST], [*AROUND, *wrong])))
    assert found[FIRST]
    assert not found[wrong[0]]


def test_the_same_hints_give_the_same_voxels_and_stored_integers_the_same_as_floats() -> None:
    hints = _hints([FIRST], AROUND)
    as_floats = segment(values().astype(np.float32), SPACING_KJI, hints)
    as_stored = segment(values(), SPACING_KJI, hints)  # pyright: ignore[reportArgumentType]
    assert as_floats[0] == as_stored[0]
    assert np.array_equal(as_floats[1], as_stored[1])


def test_a_large_region_is_solved_on_a_coarser_grid_and_stays_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_walker, "MAX_NODES", 9000)
    found = _whole(SHAPE_KJI, segment(values().astype(np.float32), SPACING_KJI, _hints([FIRST], AROUND)))
    assert dice(found, ball(FIRST)) > 0.85


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_a_picture(axis: int) -> None:
    flat = np.moveaxis(values().astype(np.float32)[12:13], 0, axis)
    stroke = [[0, 20, i] for i in range(12, 29)]
    points = np.array([*stroke, [0, 20, 38], [0, 38, 20], [0, 4, 20], [0, 20, 4]])
    at = np.stack([np.insert(np.delete(p, 0), axis, p[0]) for p in points])
    spacing = tuple(np.insert([0.75, 0.75], axis, 2.5).tolist())
    found = _whole(flat.shape, segment(flat, spacing, Hints(at, np.arange(len(at)) < len(stroke))))
    assert dice(found, np.moveaxis(ball(FIRST)[12:13], 0, axis)) > 0.75


@pytest.mark.parametrize(
    ("organ", "label", "bar"), [("spleen", 1, 0.85), ("right kidney", 2, 0.82), ("liver", 5, 0.85)]
)
def test_organs_of_a_real_ct_are_found_from_a_few_points(organ: str, label: int, bar: float) -> None:
    """25 points on the organ, 60 around it (docs/explanation/interactive.md); the mean over four draws of the points."""
    nibabel = pytest.importorskip("nibabel")
    folder = shared_data_folder() / "ct" / "totalseg-nifti"
    image = nibabel.load(folder / "example_ct_sm.nii.gz")
    voxels = np.asarray(image.dataobj, np.float32)
    truth = np.asarray(nibabel.load(folder / "example_seg.nii.gz").dataobj) == label
    near, far = (np.asarray(ndimage.binary_dilation(truth, iterations=n), np.bool_) for n in (1, 8))
    ring = far & ~near
    inner = np.argwhere(ndimage.binary_erosion(truth))
    outer = np.argwhere(ring)
    reached: list[float] = []
    for draw in range(4):
        chance = np.random.default_rng(draw)
        at = np.concatenate([inner[chance.choice(len(inner), 25)], outer[chance.choice(len(outer), 60)]])
        found = segment(voxels, image.header.get_zooms()[:3], Hints(at, np.arange(85) < 25))
        reached.append(dice(_whole(voxels.shape, found), truth))
    assert np.mean(reached) >= bar, f"{organ}: {reached}"
