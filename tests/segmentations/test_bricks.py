"""Bricks: what is packed comes back, the same content has one address, and what is damaged is told."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from annotomy.errors import BadRequest
from annotomy.segmentations import body, bricks, nifti_file, nrrd_file, png_file
from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet, of_labels, of_masks, pack, unpack
from annotomy.segmentations.interchange import FileSegment, LabelGrid, layers_of
from annotomy.segmentations.seg_file import overlapping
from annotomy.segmentations.statistics import statistics_of

shapes = st.tuples(st.integers(1, 35), st.integers(1, 9), st.integers(1, 9))
masks = shapes.flatmap(lambda shape: arrays.arrays(np.bool_, shape))
labels = shapes.flatmap(lambda shape: arrays.arrays(np.uint8, shape, elements=st.integers(0, 4)))


@given(masks)
def test_a_mask_comes_back_from_its_bricks_and_empty_ones_are_absent(mask: NDArray[np.bool_]) -> None:
    found = of_masks({3: mask}, (mask.shape[0], mask.shape[1], mask.shape[2]))
    assert np.array_equal(found.mask(3), mask)
    for index in range(-(-len(mask) // BRICK_SLICES)):
        part = mask[index * BRICK_SLICES : (index + 1) * BRICK_SLICES]
        assert ((3, index) in found.bricks) == bool(part.any())


@given(labels)
def test_a_label_map_comes_back_and_its_bricks_are_those_of_its_masks(given_labels: NDArray[np.uint8]) -> None:
    shape = (given_labels.shape[0], given_labels.shape[1], given_labels.shape[2])
    found = of_labels(given_labels, [1, 2, 3, 4])
    assert found == of_masks({n: given_labels == n for n in (1, 2, 3, 4)}, shape)
    [labelmap] = layers_of(found, [1, 2, 3, 4])
    assert np.array_equal(labelmap, given_labels) and not overlapping(found, [1, 2, 3, 4])


@given(masks, masks)
def test_an_overlap_is_found_exactly_when_a_voxel_is_shared(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> None:
    shape = (max(len(mask), len(other)), 9, 9)
    placed: list[NDArray[np.bool_]] = []
    for one in (mask, other):
        placed.append(np.zeros(shape, np.bool_))
        placed[-1][: len(one), : one.shape[1], : one.shape[2]] = one[:, :9, :9]
    found = of_masks({1: placed[0], 2: placed[1]}, shape)
    assert overlapping(found, [1, 2]) == bool(np.any(placed[0] & placed[1]))


@given(masks)
def test_the_same_content_has_one_address_and_another_content_another(mask: NDArray[np.bool_]) -> None:
    brick = pack(mask[:BRICK_SLICES])
    if brick is None:
        return
    assert pack(mask[:BRICK_SLICES].copy()) == brick
    changed = mask[:BRICK_SLICES].copy()
    changed.flat[0] ^= True
    other = pack(changed)
    assert other is None or other.address != brick.address


def test_a_damaged_brick_is_told() -> None:
    slab = np.zeros((16, 8, 8), np.bool_)
    slab[3, 2, 1] = True
    brick = pack(slab)
    assert brick is not None
    other = pack(~slab)
    assert other is not None
    for bad in (replace(brick, data=brick.data[:-3]), replace(brick, data=other.data), replace(brick, data=b"")):
        with pytest.raises(bricks.DamagedBrick):
            unpack(bad, (16, 8, 8))
    with pytest.raises(bricks.DamagedBrick):
        unpack(brick, (16, 8, 9))


@given(masks, st.integers(0, 10_000))
def test_statistics_of_bricks_equal_those_of_the_array(mask: NDArray[np.bool_], seed: int) -> None:
    affine = np.eye(4)
    affine[:3] = np.random.default_rng(seed).normal(size=(3, 4))
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    told = statistics_of(of_masks({1: mask}, shape).counts(1), affine)
    places = np.argwhere(mask)
    assert told["voxels"] == len(places)
    assert told["volume_mm3"] == pytest.approx(len(places) * abs(np.linalg.det(affine[:3, :3])))
    if len(places):
        points = places[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
        assert np.allclose(told["centroid_lps_mm"], points.mean(axis=0))
        assert told["bounding_box"]["first_kji"] == places.min(axis=0).tolist()
        assert told["bounding_box"]["last_kji"] == places.max(axis=0).tolist()


@given(shapes.flatmap(lambda s: st.lists(arrays.arrays(np.bool_, s), min_size=1, max_size=5)))
def test_layers_hold_overlapping_segments_without_loss(found: list[NDArray[np.bool_]]) -> None:
    shape = (found[0].shape[0], found[0].shape[1], found[0].shape[2])
    given_masks = dict(enumerate(found, start=1))
    layers = layers_of(of_masks(given_masks, shape), list(given_masks))
    for number, mask in given_masks.items():
        assert np.array_equal(sum((layer == number for layer in layers), np.zeros(shape, np.int64)), mask)
    if np.sum(found, axis=0).max() <= 1:
        assert len(layers) == 1


@settings(deadline=None)
@given(masks)
def test_the_binary_form_holds_the_bits_that_numpy_packs(mask: NDArray[np.bool_]) -> None:
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    data = b"".join(body.encode(of_masks({1: mask, 7: ~mask}, shape), [1, 7], [0.0] * 16, 3))
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    assert header["shape_kji"] == list(shape) and header["version"] == 3
    for segment, expected in zip(header["segments"], (mask, ~mask), strict=True):
        start = 4 + length + segment["offset"]
        assert data[start : start + segment["length"]] == np.packbits(expected, bitorder="little").tobytes()
    edit = body.decode(data, shape)
    expected_bricks = of_masks({1: mask, 7: ~mask}, shape).bricks
    assert {key: brick for key, brick in edit.changed.items() if brick is not None} == expected_bricks


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff",
        struct.pack("<I", 2) + b"{}",
        struct.pack("<I", 20) + b"not json and too long"[:20],
        body.MEDIA_TYPE.encode(),
    ],
)
def test_a_body_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        body.decode(data, (1, 2, 3))


@pytest.mark.parametrize(("offset", "length", "bits"), [(0, 2, b"\0"), (1, 1, b"\0"), (-1, 1, b"\0"), (0, 1, b"\xff")])
def test_a_range_that_does_not_hold_the_voxels_is_refused(offset: int, length: int, bits: bytes) -> None:
    header = {"shape_kji": [1, 2, 3], "segments": [{"segment_number": 1, "offset": offset, "length": length}]}
    text = json.dumps(header).encode()
    with pytest.raises(BadRequest):
        body.decode(struct.pack("<I", len(text)) + text + bits, (1, 2, 3))


def _grid(given_labels: NDArray[np.uint8], seed: int, layers: int) -> LabelGrid:
    affine = np.eye(4)
    affine[:3] = np.random.default_rng(seed).normal(size=(3, 4)) * 10
    segments = tuple(FileSegment(n, f"Organ {n} 간", ("1", "99TEST", "Organ"), color="#102030") for n in range(1, 5))
    return LabelGrid((given_labels,) * layers, affine, segments)


@settings(deadline=None, max_examples=40)
@given(labels, st.integers(0, 10_000), st.sampled_from([1, 2]))
def test_nrrd_and_png_come_back_exactly_and_nifti_to_single_precision(
    given_labels: NDArray[np.uint8], seed: int, layers: int
) -> None:
    grid = _grid(given_labels, seed, layers)
    nrrd = nrrd_file.read_nrrd(nrrd_file.write_nrrd(grid))
    png = png_file.read_pngs(png_file.write_pngs(grid, []), np.eye(4))
    nifti = nifti_file.read_nifti(nifti_file.write_nifti(grid))
    for found, tolerance in ((nrrd, 0.0), (png, 0.0), (nifti, 1e-4)):
        assert len(found.layers) == layers
        assert all(np.array_equal(layer, given_labels) for layer in found.layers)
        assert np.allclose(found.affine_lps, grid.affine_lps, atol=tolerance, rtol=0)
        assert [(s.number, s.label, s.code, s.color) for s in found.segments] == [
            (s.number, s.label, s.code, s.color) for s in grid.segments
        ]


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400), st.sampled_from(["nrrd", "nifti", "png"]))
def test_bytes_that_are_no_mask_file_are_refused_and_nothing_else_happens(noise: bytes, form: str) -> None:
    from annotomy.segmentations.interchange import FormatError

    read = {
        "nrrd": lambda: nrrd_file.read_nrrd(b"NRRD0005\n" + noise),
        "nifti": lambda: nifti_file.read_nifti(b"\x5c\x01\0\0" + noise),
        "png": lambda: png_file.read_pngs(b"PK\x03\x04" + noise, np.eye(4)),
    }[form]
    with pytest.raises(FormatError):
        read()


def test_a_gzip_that_grows_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from annotomy.segmentations.interchange import FormatError

    monkeypatch.setattr(nifti_file, "MAX_FILE_BYTES", 1000)
    data = nifti_file.write_nifti(_grid(np.zeros((20, 9, 9), np.uint8), 0, 1))
    with pytest.raises(FormatError, match="larger"):
        nifti_file.read_nifti(data)


def test_an_empty_mask_set_has_no_brick() -> None:
    assert not MaskSet((4, 4, 4), {}).mask(1).any()
    assert io.BytesIO(b"".join(body.encode(MaskSet((4, 4, 4), {}), [1], [0.0] * 16, 1))).read()[-8:] == bytes(8)
