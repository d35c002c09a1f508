"""Shapes, their place in the patient, and what is measured on them, against references that we did not write."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shapely import Point, Polygon, affinity, contains_xy

from annotomy.annotations.errors import InvalidGeometry, OutsideFrame
from annotomy.annotations.geometry import COUNTS, FrameGeometry, Geometry, checked, map_to_frame, outline
from annotomy.annotations.measure import FramePixels, Measurement, mask, measure

ROWS, COLUMNS = 40, 60
coordinate = st.floats(0, 40, allow_nan=False)
pixel_point = st.tuples(st.floats(0, COLUMNS), st.floats(0, ROWS))


@st.composite
def frames(draw: st.DrawFn) -> FrameGeometry:
    """Any place in the patient: turned about all axes, with pixels of any shape."""
    angles = [draw(st.floats(-math.pi, math.pi)) for _ in range(3)]
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        a, b = [n for n in range(3) if n != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = c
        one[a, b], one[b, a] = -s, s
        turn = turn @ one
    return FrameGeometry(
        rows=ROWS,
        columns=COLUMNS,
        row_spacing_mm=draw(st.floats(0.1, 5)),
        column_spacing_mm=draw(st.floats(0.1, 5)),
        position_lps_mm=(draw(st.floats(-500, 500)), draw(st.floats(-500, 500)), draw(st.floats(-500, 500))),
        orientation=(*map(float, turn[:, 0]), *map(float, turn[:, 1])),
        thickness_mm=2.0,
    )


@st.composite
def rings(draw: st.DrawFn) -> list[tuple[float, float]]:
    """A star-shaped border around the middle: it never crosses itself."""
    count = draw(st.integers(3, 24))
    radii = [draw(st.floats(1, 19)) for _ in range(count)]
    return [
        (30 + r * math.cos(2 * math.pi * n / count), 20 + r * math.sin(2 * math.pi * n / count))
        for n, r in enumerate(radii)
    ]


def named(measured: list[Measurement]) -> dict[str, tuple[float, str]]:
    return {one.name: (one.value, one.unit) for one in measured}


@settings(deadline=None)  # how busy the machine is, is not what is tested
@given(frames(), st.lists(pixel_point, min_size=3, max_size=10))
def test_a_shape_comes_back_from_the_patient(frame: FrameGeometry, points: list[tuple[float, float]]) -> None:
    drawn = Geometry("polygon", "pixel", tuple(points))
    mapped = map_to_frame(drawn, frame)
    assert mapped is not None
    back = map_to_frame(mapped, frame)
    assert back is not None
    assert np.allclose(np.array(back.points), np.array(points), atol=1e-6)


@settings(deadline=None)
@given(frames(), rings())
def test_a_polygon_measures_as_its_reference(frame: FrameGeometry, ring: list[tuple[float, float]]) -> None:
    assert frame.row_spacing_mm is not None
    assert frame.column_spacing_mm is not None
    reference = affinity.scale(Polygon(ring), frame.column_spacing_mm, frame.row_spacing_mm)
    drawn = Geometry("polygon", "pixel", tuple(ring))
    for mapped in (None, map_to_frame(drawn, frame)):
        found = named(measure(drawn, mapped, frame, None))
        assert found["area"] == (pytest.approx(reference.area, rel=1e-6), "mm2")
        assert found["perimeter"] == (pytest.approx(reference.length, rel=1e-6), "mm")


@settings(deadline=None)
@given(rings())
def test_the_pixels_of_a_region_are_those_whose_centres_lie_inside(ring: list[tuple[float, float]]) -> None:
    polygon = Polygon(ring)
    x, y = np.meshgrid(np.arange(COLUMNS) + 0.5, np.arange(ROWS) + 0.5)
    wanted = contains_xy(polygon, x, y)
    undecided = np.array(
        [
            [polygon.boundary.distance(Point(a, b)) < 1e-9 for a, b in zip(r, s, strict=True)]
            for r, s in zip(x, y, strict=True)
        ]
    )
    top, left, inside = mask(Geometry("polygon", "pixel", tuple(ring)), ROWS, COLUMNS)
    found = np.zeros((ROWS, COLUMNS), bool)
    found[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    assert np.array_equal(found & ~undecided, wanted & ~undecided)


def test_values_of_a_region_are_those_of_numpy() -> None:
    values = np.random.default_rng(3).normal(40, 12, (ROWS, COLUMNS)).astype(np.float32)
    drawn = Geometry("rectangle", "pixel", ((10, 5), (30, 25)))
    found = named(measure(drawn, None, FrameGeometry(ROWS, COLUMNS, 0.5, 0.25), FramePixels(values, "[hnsf'U]")))
    region = values[5:25, 10:30].astype(np.float64)
    assert found == {
        "area": (pytest.approx(400 * 0.5 * 0.25), "mm2"),
        "perimeter": (pytest.approx(2 * (20 * 0.5 + 20 * 0.25)), "mm"),
        "mean": (pytest.approx(region.mean(), rel=1e-9), "[hnsf'U]"),
        "standard_deviation": (pytest.approx(region.std(), rel=1e-9), "[hnsf'U]"),
        "minimum": (region.min(), "[hnsf'U]"),
        "maximum": (region.max(), "[hnsf'U]"),
    }


@settings(deadline=None)
@given(st.floats(1, 15), st.floats(1, 15), st.floats(0, math.pi))
def test_an_ellipse_measures_as_its_formula(a: float, b: float, turn: float) -> None:
    c, s = math.cos(turn), math.sin(turn)
    centre = (30, 20)
    points = tuple(
        (centre[0] + r * x, centre[1] + r * y) for r, x, y in ((a, c, s), (-a, c, s), (b, -s, c), (-b, -s, c))
    )
    drawn = Geometry("ellipse", "pixel", points)
    found = named(measure(drawn, None, FrameGeometry(ROWS, COLUMNS, 1, 1), None))
    fine = affinity.rotate(affinity.scale(Point(centre).buffer(1, quad_segs=4000), a, b), turn, use_radians=True)
    assert found["area"][0] == pytest.approx(math.pi * a * b)
    assert found["perimeter"][0] == pytest.approx(fine.length, rel=1e-6)
    top, left, inside = mask(drawn, ROWS, COLUMNS)
    x, y = np.meshgrid(np.arange(inside.shape[1]) + left + 0.5, np.arange(inside.shape[0]) + top + 0.5)
    assert abs(int(inside.sum()) - int(contains_xy(fine, x, y).sum())) <= 2  # centres on the very border


def test_lengths_angles_and_boxes() -> None:
    frame = FrameGeometry(ROWS, COLUMNS, row_spacing_mm=2.0, column_spacing_mm=0.5)

    def told(kind: str, *points: tuple[float, ...], space: str = "pixel", **more: bool) -> dict[str, tuple[float, str]]:
        return named(measure(Geometry(kind, space, points, **more), None, frame, None))  # type: ignore[arg-type]

    assert told("length", (0, 0), (6, 2)) == {"length": (5.0, "mm")}  # 3 mm across, 4 mm down
    assert told("bidirectional", (0, 0), (6, 2), (0, 0), (24, 0)) == {
        "long_axis": (12.0, "mm"),
        "short_axis": (5.0, "mm"),
    }
    assert told("angle", (4, 0), (0, 0), (4, 1)) == {"angle": (pytest.approx(45), "deg")}
    assert told("cobb_angle", (0, 0), (4, 0), (4, 3), (0, 2)) == {"cobb_angle": (pytest.approx(45), "deg")}
    assert told("freehand", (0, 0), (0, 1), (4, 1), closed=False) == {"length": (pytest.approx(4.0), "mm")}
    assert told("line3d", (0, 0, 0), (1, 2, 2), space="lps_mm") == {"length": (3.0, "mm")}
    assert told("box3d", (1, 1, 1), (3, 4, 0), space="lps_mm") == {"volume": (6.0, "mm3")}
    corners = [(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 9)]
    assert told("box3d", *corners, space="lps_mm") == {"volume": (pytest.approx(18.0), "mm3")}
    assert named(measure(Geometry("length", "pixel", ((0, 0), (3, 4))), None, None, None)) == {
        "length": (5.0, "{pixels}")
    }
    assert measure(Geometry("angle", "pixel", ((1, 0), (0, 0), (0, 1))), None, None, None) == []


def test_corners_may_go_around_the_rectangle_or_row_by_row() -> None:
    around = ((2, 1), (8, 1), (8, 5), (2, 5))
    by_rows = (around[0], around[1], around[3], around[2])
    frame = FrameGeometry(ROWS, COLUMNS, 1, 1)
    assert {
        named(measure(Geometry("rectangle", "pixel", p), None, frame, None))["area"][0] for p in (around, by_rows)
    } == {24}


def test_a_spline_goes_through_its_points() -> None:
    points = ((5, 5), (20, 8), (25, 25), (8, 20))
    curve = outline(Geometry("spline", "pixel", points))
    for point in points:
        assert np.min(np.linalg.norm(curve - point, axis=1)) < 1e-9
    circle = tuple(
        (30 + 10 * math.cos(t), 20 + 10 * math.sin(t)) for t in np.linspace(0, 2 * math.pi, 12, endpoint=False)
    )
    area = named(measure(Geometry("spline", "pixel", circle), None, FrameGeometry(ROWS, COLUMNS, 1, 1), None))["area"][
        0
    ]
    assert area == pytest.approx(math.pi * 100, rel=0.01)


@settings(deadline=None)
@given(st.sampled_from(sorted(COUNTS)), st.integers(0, 9), st.sampled_from(["pixel", "lps_mm"]))
def test_each_type_takes_its_number_of_points(kind: str, count: int, space: str) -> None:
    assume(kind != "none")
    points = tuple((1.0,) * (2 if space == "pixel" else 3) for _ in range(count))
    geometry = Geometry(kind, space, points)  # type: ignore[arg-type]
    allowed = count in COUNTS[kind]
    if space == "pixel":
        allowed = allowed and kind not in ("box3d", "line3d")
    elif kind in ("rectangle", "ellipse"):
        allowed = count == 4
    if allowed:
        assert checked(geometry) == geometry
    else:
        with pytest.raises(InvalidGeometry):
            checked(geometry)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e7])
def test_coordinates_are_finite_and_in_bounds(value: float) -> None:
    with pytest.raises(InvalidGeometry) as refused:
        checked(Geometry("length", "pixel", ((1, 2), (value, 4))))
    assert refused.value.extras["point_index"] == 1


def test_points_on_the_border_belong_to_the_frame() -> None:
    frame = FrameGeometry(ROWS, COLUMNS)
    assert map_to_frame(Geometry("length", "pixel", ((0, 0), (COLUMNS, ROWS))), frame) is None
    with pytest.raises(OutsideFrame):
        map_to_frame(Geometry("length", "pixel", ((0, 0), (COLUMNS + 0.01, ROWS))), frame)
