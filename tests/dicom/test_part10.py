"""The head of a DICOM file: what we write others read, and the data set's start is found in what others wrote."""

import contextlib
import io
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from annotomy.dicom.part10 import MAX_META_BYTES, NotPart10, data_set_start, file_head


def test_pydicom_reads_the_head() -> None:
    head = file_head(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2"
    )
    meta = dcmread(io.BytesIO(head)).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert data_set_start(head) == len(head)


TEST_FILES = sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_the_start_is_where_pydicom_finds_it(path: Path) -> None:
    data = path.read_bytes()
    if data[128:132] != b"DICM":
        with pytest.raises(NotPart10):
            data_set_start(data)
        return
    meta = read_file_meta_info(path)
    if "FileMetaInformationGroupLength" not in meta:
        pytest.skip("the file does not say it itself")
    declared = 144 + int(meta.FileMetaInformationGroupLength)
    start = data_set_start(data)
    if data[start : start + 2] != b"\x02\x00" and declared != start:
        pytest.skip("the file's group length is wrong")
    assert start == declared


@given(st.binary(max_size=2000), st.binary(max_size=200))
def test_garbage_is_refused_or_has_a_start_within(garbage: bytes, tail: bytes) -> None:
    for data in (
        garbage,
        bytes(128) + b"DICM" + garbage,
        file_head(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax_uid="1.4") + tail,
    ):
        with contextlib.suppress(NotPart10):
            assert 0 <= data_set_start(data[:MAX_META_BYTES]) <= len(data)
