"""Filling contours: exact on pixel edges, the area of a polygon in the mean, holes and parts as the standard writes them."""

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from annotomy.dicom.contour_fill import fill, fill_slice
from annotomy.dicom.rtstruct import contours


def polygon(*points: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(points, np.float64)


@settings(deadline=None)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda s: arrays.arrays(np.bool_, s)))
def test_what_the_writer_outlines_is_filled_the_same(mask: NDArray[np.bool_]) -> None:
    shape = (mask.shape[0], mask.shape[1])
    assert np.array_equal(fill_slice([polygon(*loop) - 0.5 for loop in contours(mask)], shape), mask)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 12)), min_size=3, max_size=9), st.randoms())
def test_any_polygon_is_filled_as_shapely_says(points: list[tuple[float, float]], random: object) -> None:
    """By the even-odd rule, also where it crosses itself or leaves the picture; centres on the line may go either way."""
    del random
    lines = shapely.LinearRing(points)
    found = fill(polygon(*points), (10, 12))
    faces = shapely.polygonize([shapely.unary_union(lines)]) if lines.length else shapely.GeometryCollection()
    for row in range(10):
        for column in range(12):
            centre = shapely.Point(column, row)
            if lines.distance(centre) < 1e-6:
                continue
            ray = shapely.LineString([(column, row), (100.0, row + np.pi)])
            crossings = sum(
                ray.crosses(shapely.LineString([a, b])) for a, b in zip(points, [*points[1:], points[0]], strict=True)
            )
            within = any(face.contains(centre) for face in faces.geoms)
            assert found[row, column] == bool(crossings % 2), (row, column)
            assert within or not found[row, column]


def test_a_circle_has_its_area() -> None:
    turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = np.column_stack([100.3 + 80 * np.cos(turn), 90.7 + 80 * np.sin(turn)])
    assert abs(np.count_nonzero(fill(circle, (200, 200))) / (np.pi * 80**2) - 1) < 2e-3


def test_a_contour_inside_another_is_a_hole_and_one_inside_the_hole_a_part_again() -> None:
    outer = polygon((0.5, 0.5), (8.5, 0.5), (8.5, 8.5), (0.5, 8.5))
    hole = polygon((2.5, 2.5), (6.5, 2.5), (6.5, 6.5), (2.5, 6.5))
    island = polygon((3.5, 3.5), (5.5, 3.5), (5.5, 5.5), (3.5, 5.5))
    for order in ([outer, hole, island], [island, hole, outer]):
        assert np.count_nonzero(fill_slice(order, (10, 10))) == 64 - 16 + 4
    assert np.count_nonzero(fill_slice([outer, outer], (10, 10))) == 64, "drawn twice is drawn once"
    across = outer + 4
    assert np.count_nonzero(fill_slice([outer, across], (14, 14))) == 64 + 64 - 16
    assert np.count_nonzero(fill_slice([outer, across], (14, 14), exclusive=True)) == 2 * (64 - 16)


def test_areas_with_a_common_border_through_pixel_centres_share_no_pixel() -> None:
    left, right = polygon((0, 0), (4, 0), (4, 6), (0, 6)), polygon((4, 0), (9, 0), (9, 6), (4, 6))
    both = fill(left, (8, 11)).astype(int) + fill(right, (8, 11))
    assert both.max() == 1 and both.sum() == 9 * 6
