"""The header scanner finds what pydicom finds, refuses what lies, and stays within its bounds."""

import io
import logging
import struct
import time
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag

from annotomy.dicom import scanner
from annotomy.dicom.attributes import MAX_VALUE_BYTES, Attributes, json_of, tags_of, text_of
from annotomy.dicom.scanner import Scan, ScanError, scan
from tests.support.dicom_files import ct_series
from tests.support.mutations import MAX_SOURCE_BYTES, is_dicom, mutations, packaged_files
from tests.support.shared_data import shared_data_folder

WANTED = tags_of(
    ("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
     "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDescription", "Modality",
     "SeriesNumber", "SeriesDescription", "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns",
     "NumberOfFrames", "BitsAllocated", "ImageType", "PatientPosition", "ContentLabel")
)  # fmt: skip
TAGS = frozenset(tag for tag, _ in WANTED.values())
MUTATIONS = 4000
LONG_MUTATIONS = 100_000
SLOWEST_S = 20.0
"""For one file on a busy machine; alone the slowest takes well under a second."""

REFUSED = {
    "meta_missing_tsyntax.dcm": "The file names no transfer syntax.",
    "rtplan_truncated.dcm": "The value of BeamSequence reaches beyond what holds it.",
}
"""Damaged on purpose; pydicom reads them by guessing."""


@contextmanager
def quiet() -> Generator[None]:
    """pydicom warns of every oddity in a damaged file."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def assert_equals_pydicom(data: bytes, found: Scan) -> None:
    with quiet():
        file = io.BytesIO(data)
        dataset = dcmread(file, stop_before_pixels=True)
        if not found.deflated:
            assert found.header_end == file.tell()
        assert found.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
        attributes = Attributes(found, WANTED)
        expected = _without_long_values(dataset)
        for keyword in WANTED:
            assert attributes.text(keyword, 10_000) == text_of(expected, keyword)[:10_000], keyword
            assert attributes.json([keyword]) == _expected_json(expected, keyword), keyword


def _without_long_values(dataset: FileDataset) -> Dataset:
    for tag in TAGS:
        raw: Any = dataset._dict.get(BaseTag(tag))  # pyright: ignore[reportPrivateUsage] - get_item may convert, and raise
        length = getattr(raw, "length", 0) or 0
        if raw is not None and (length == 0xFFFFFFFF or length > MAX_VALUE_BYTES or _is_sequence(raw)):
            del dataset[tag]
    return dataset


def _is_sequence(raw: Any) -> bool:
    return getattr(raw, "VR", None) == "SQ" and not hasattr(raw, "length")


def _expected_json(dataset: Dataset, keyword: str) -> dict[str, Any]:
    value = json_of(dataset, keyword)
    return {} if value is None else {f"{WANTED[keyword][0]:08X}": value}


@pytest.mark.parametrize("path", packaged_files(), ids=lambda path: path.name)
def test_every_packaged_file_is_scanned_as_pydicom_reads_it(path: Path) -> None:
    data = path.read_bytes()
    if path.name in REFUSED:
        with pytest.raises(ScanError) as refused:
            scan(data, TAGS)
        assert str(refused.value) == REFUSED[path.name]
        return
    assert_equals_pydicom(data, scan(data, TAGS))


def test_every_file_of_the_development_data_is_scanned_as_pydicom_reads_it() -> None:
    files = [path for path in sorted(shared_data_folder().rglob("*")) if is_dicom(path)]
    assert files
    for path in files:
        data = path.read_bytes()
        assert_equals_pydicom(data, scan(data, TAGS))


def _sources() -> list[bytes]:
    small = [path.read_bytes() for path in packaged_files() if path.stat().st_size <= MAX_SOURCE_BYTES]
    return [*small, *ct_series(1)]


def _check_mutations(count: int, seed: int) -> None:
    accepted = 0
    for data in mutations(_sources(), count, seed):
        began = time.process_time()
        try:
            found = scan(data, TAGS)
        except ScanError:
            continue
        finally:
            assert time.process_time() - began < SLOWEST_S
        accepted += 1
        assert_equals_pydicom(data, found)
    assert accepted > count // 10, "most damage must leave something to compare"


def test_damaged_files_are_refused_or_read_as_pydicom_reads_them() -> None:
    _check_mutations(MUTATIONS, seed=20260701)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_damaged_files_are_refused_or_read_as_pydicom_reads_them() -> None:
    _check_mutations(LONG_MUTATIONS, seed=20260702)


@given(st.binary(max_size=2000))
def test_any_bytes_behind_the_prefix_end_in_a_scan_or_a_scan_error(body: bytes) -> None:
    for data in (body, b"\0" * 128 + b"DICM" + body, _file(body), _file(body, syntax=b"1.2.840.10008.1.2\0")):
        with suppress(ScanError):
            scan(data, TAGS)


# ---------------------------------------------------------------------------------------------------- what is refused
def _element(group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    if vr in (b"SQ", b"UN", b"OB", b"OW", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


def _file(dataset: bytes, *, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    return b"\0" * 128 + b"DICM" + _element(2, 0x10, b"UI", syntax) + dataset


MODALITY = _element(8, 0x60, b"CS", b"CT")
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
OPEN = b"\xff\xff\xff\xff"


def nested_undefined(depth: int) -> bytes:
    opening = _element(0x40, 0xA730, b"SQ", b"", length=0xFFFFFFFF) + ITEM + OPEN
    return opening * depth + MODALITY + (ITEM_END + SEQUENCE_END) * depth


def nested_defined(depth: int, vr: bytes = b"SQ") -> bytes:
    value = MODALITY
    for _ in range(depth):
        value = _element(0x40, 0xA730, vr, ITEM + struct.pack("<I", len(value)) + value)
    return value


@pytest.mark.parametrize("make", [nested_undefined, nested_defined])
def test_sequences_nest_as_deep_as_the_limit_and_no_deeper(make: Any) -> None:
    scan(_file(make(scanner.MAX_DEPTH)), TAGS)
    for depth in (scanner.MAX_DEPTH + 1, 300, 3000):
        with pytest.raises(ScanError, match="nested"):
            scan(_file(make(depth)), TAGS)


def test_what_only_looks_like_a_sequence_may_not_nest_deeper_either() -> None:
    with pytest.raises(ScanError, match="nested"):
        scan(_file(nested_defined(300, b"UN")), TAGS)
    looks_only_like_one = _element(9, 0x1001, b"UN", ITEM + b"\x10\0\0\0" + b"no items at all, but long enough" * 40)
    assert scan(_file(looks_only_like_one + MODALITY), TAGS).value(0x00080060) == b"CT"


def test_more_elements_than_the_limit_are_refused() -> None:
    with pytest.raises(ScanError, match="elements"):
        scan(_file(_element(9, 0x10, b"LO", b"") * (scanner.MAX_ELEMENTS + 1)), TAGS)
    items = _element(0x40, 0xA730, b"SQ", (ITEM + b"\0\0\0\0") * (scanner.MAX_ELEMENTS + 1))
    with pytest.raises(ScanError, match="elements"):
        scan(_file(items), TAGS)


def test_a_value_over_the_limit_is_refused_unless_it_is_pixel_data() -> None:
    big = b"\0" * (scanner.MAX_ELEMENT_BYTES + 2)
    with pytest.raises(ScanError, match="larger"):
        scan(_file(_element(0x42, 0x11, b"OB", big)), TAGS)
    found = scan(_file(_element(0x7FE0, 0x10, b"OW", big)), TAGS)
    assert found.pixels is not None
    assert found.pixels.length == len(big)


@pytest.mark.parametrize(
    "dataset",
    [
        _element(0x10, 0x10, b"PN", b"Secret^Name", length=0xFFFE),
        _element(0x10, 0x4000, b"UT", b"Secret^Name", length=0xFFFFFFFE),
        _element(0x42, 0x11, b"OB", b"Secret^Name", length=0xFFFFFFFF),
        _element(0x40, 0xA730, b"SQ", ITEM + b"\x64\0\0\0" + b"Secret^Name", length=0xFFFFFFFF),
        _element(0x40, 0xA730, b"SQ", b"Secret^Name, no item", length=0xFFFFFFFF),
        MODALITY + b"\x10\0\x10",
        ITEM_END + MODALITY,
        SEQUENCE_END + MODALITY,
    ],
)
def test_lying_lengths_and_stray_delimiters_are_refused_without_a_value_in_the_text(dataset: bytes) -> None:
    with pytest.raises(ScanError) as refused:
        scan(_file(dataset), TAGS)
    assert "Secret" not in str(refused.value)


def test_odd_lengths_and_wrong_group_lengths_are_read() -> None:
    lying = _element(8, 0, b"UL", struct.pack("<I", 0xFFFFFFFF))
    found = scan(_file(lying + MODALITY + _element(0x10, 0x20, b"LO", b"odd")), TAGS)
    assert (found.value(0x00080060), found.value(0x00100020)) == (b"CT", b"odd")
    meta = _element(2, 0, b"UL", struct.pack("<I", 5)) + _element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")
    assert scan(b"\0" * 128 + b"DICM" + meta + MODALITY, TAGS).value(0x00080060) == b"CT"


def _deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return _file(packer.compress(plain) + packer.flush(), syntax=b"1.2.840.10008.1.2.1.99")


def test_a_deflated_file_is_read_up_to_the_ratio_and_a_bomb_is_refused() -> None:
    assert scan(_deflated(MODALITY), TAGS).value(0x00080060) == b"CT"
    bomb = _deflated(_element(0x42, 0x11, b"OB", b"\0" * (40 << 20)))
    assert len(bomb) < 50_000
    with pytest.raises(ScanError, match="grows"):
        scan(bomb, TAGS)
    with pytest.raises(ScanError, match="cut off"):
        scan(_deflated(MODALITY * 50)[:-3], TAGS)


@pytest.mark.parametrize("syntax", [b"../../../etc/passwd\0", b"1.2.3\0", b"1" * 100, b"1.2.840.10008.1.2.1\n", b""])
def test_a_transfer_syntax_that_is_none_is_refused(syntax: bytes) -> None:
    with pytest.raises(ScanError, match="transfer syntax"):
        scan(_file(MODALITY, syntax=syntax), TAGS)


def test_a_file_cut_anywhere_is_refused_or_has_a_whole_header() -> None:
    [data] = ct_series(1)
    whole = scan(data, TAGS)
    for end in range(0, len(data), 64):
        try:
            found = scan(data[:end], TAGS)
        except ScanError:
            continue
        assert found.header_end == min(end, whole.header_end)


def test_errors_name_standard_attributes_only_since_a_tag_may_be_bytes_of_a_value() -> None:
    with pytest.raises(ScanError, match="Modality"):
        scan(_file(_element(8, 0x60, b"CS", b"CT", length=900)), TAGS)
    with pytest.raises(ScanError) as refused:
        scan(_file(b"HongLO\xff\xff" + b"rest"), TAGS)
    assert str(refused.value) == "The value of an element reaches beyond what holds it."
