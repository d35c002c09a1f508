"""NRRD and MetaImage become DICOM slices with every value where it was; what lies about itself is refused."""

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from annotomy.dicom.metaimage import metaimage_to_dicom
from annotomy.dicom.nrrd import nrrd_to_dicom
from annotomy.dicom.volume_series import Told, VolumeError
from tests.dicom.test_nifti import by_place

SHAPE = (4, 3, 2)
AFFINE = np.array([[0.5, 0, 0, 7.5], [0, 0, -2.0, -3.25], [0, -1.25, 0, 11], [0, 0, 0, 1]])
VALUES = (np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) * 100 - 1024).astype(np.int16)


def nrrd(body: bytes, **fields: str) -> bytes:
    told = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "4 3 2",
        "space directions": "(0.5,0,0) (0,0,-1.25) (0,-2,0)", "kinds": "domain domain domain", "endian": "little",
        "encoding": "raw", "space origin": "(7.5,-3.25,11)",
    } | {name.replace("_", " "): value for name, value in fields.items()}  # fmt: skip
    return "\n".join(["NRRD0004", *(f"{k}: {v}" for k, v in told.items()), "", ""]).encode() + body


def metaimage(body: bytes, **fields: str) -> bytes:
    told = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 0 -1 0 -1 0", "Offset": "7.5 -3.25 11",
        "ElementSpacing": "0.5 1.25 2", "DimSize": "4 3 2", "ElementType": "MET_SHORT",
    } | fields  # fmt: skip
    told["ElementDataFile"] = told.pop("ElementDataFile", "LOCAL")
    return "".join(f"{k} = {v}\n" for k, v in told.items()).encode() + body


RAW = VALUES.astype("<i2").tobytes(order="F")
BIG = VALUES.astype(">i2").tobytes(order="F")


def converted(data: bytes, folder: Path, *, beside: bytes | None = None, told: Told | None = None) -> list[Dataset]:
    path, other = folder / "v.volume", folder / "v.data"
    path.write_bytes(data)
    other.write_bytes(beside or b"")
    convert = nrrd_to_dicom if data.startswith(b"NRRD") else metaimage_to_dicom
    files = convert(path, told or Told("salt", "v.nrrd"), lambda name: other if name == "v.raw" and beside else None)
    found: list[Dataset] = [dcmread(io.BytesIO(one)) for one in files]
    assert {one.name for one in folder.iterdir()} == {"v.volume", "v.data"}, "nothing is left beside the file"
    return found


def expected() -> dict[tuple[float, ...], int]:
    return {tuple(np.round((AFFINE @ [*index, 1.0])[:3], 3) + 0.0): int(VALUES[index]) for index in np.ndindex(*SHAPE)}


@pytest.mark.parametrize(
    ("data", "beside"),
    [
        (nrrd(RAW), None),
        (nrrd(gzip.compress(RAW), encoding="gzip"), None),
        (nrrd(BIG, endian="big"), None),
        (nrrd(b"1234" + RAW, byte_skip="4"), None),
        (nrrd(b"", data_file="v.raw"), RAW),
        (nrrd(b"", data_file="v.raw", byte_skip="-1"), b"a header of others" + RAW),
        (nrrd(b"", data_file="v.raw", encoding="gzip"), gzip.compress(RAW)),
        (
            nrrd(RAW, space="RAS", space_directions="(-0.5,0,0) (0,0,-1.25) (0,2,0)", space_origin="(-7.5,3.25,11)"),
            None,
        ),
        (metaimage(RAW), None),
        (metaimage(zlib.compress(RAW), CompressedData="True"), None),
        (metaimage(BIG, BinaryDataByteOrderMSB="True"), None),
        (metaimage(b"", ElementDataFile="v.raw"), RAW),
        (metaimage(b"", ElementDataFile="v.raw", HeaderSize="-1"), b"something before" + RAW),
    ],
    ids=lambda value: None if value is None else f"{len(value)}",
)
def test_every_value_stays_at_its_place(tmp_path: Path, data: bytes, beside: bytes | None) -> None:
    slices = converted(data, tmp_path, beside=beside)
    assert by_place(slices) == expected()
    assert [float(v) for v in slices[0].ImageOrientationPatient] == [1, 0, 0, 0, 0, -1], "coronal slices stand upright"


@given(values=st.lists(st.integers(0, 65535), min_size=24, max_size=24))
@settings(max_examples=30)
def test_unsigned_values_of_16_bits_are_kept_exactly(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    body = np.array(values, "<u2").tobytes()
    slices = converted(nrrd(body, type="ushort"), tmp_path_factory.mktemp("u16"))
    found = [float(one.RescaleSlope) * one.pixel_array + float(one.RescaleIntercept) for one in slices]
    assert sorted(int(v) for v in np.concatenate([one.ravel() for one in found])) == sorted(values)


def test_what_is_called_ct_becomes_ct_in_hounsfield_units(tmp_path: Path) -> None:
    [first, *_] = converted(metaimage(RAW, Modality="MET_MOD_CT"), tmp_path)
    assert (first.Modality, first.SOPClassUID.name, first.RescaleType) == ("CT", "CT Image Storage", "HU")
    [told, *_] = converted(nrrd(RAW), tmp_path, told=Told("salt", "v.nrrd", "CT"))
    assert told.Modality == "CT"
    [plain, *_] = converted(nrrd(RAW), tmp_path)
    assert plain.Modality == "MR"
    assert plain.SOPInstanceUID != told.SOPInstanceUID, "no instance with one UID and two contents"


@pytest.mark.parametrize(
    "data",
    [
        nrrd(RAW[:-1]),
        nrrd(gzip.compress(RAW)[:-12], encoding="gzip"),
        nrrd(gzip.compress(RAW[:-2]), encoding="gzip"),
        nrrd(RAW, sizes="65000 65000 65000"),
        nrrd(gzip.compress(b""), sizes="16000 1024 512", encoding="gzip"),
        nrrd(RAW, sizes="4 -3 2"),
        nrrd(RAW, sizes="4 3 2 1"),
        nrrd(RAW, sizes="99999999999999 1 1"),
        nrrd(RAW, encoding="bzip2"),
        nrrd(RAW, space_directions="(1,0,0) (1,0.5,0) (0,0,1)"),
        nrrd(RAW, space_directions="(nan,0,0) (0,1,0) (0,0,1)"),
        nrrd(RAW, space_directions="(0,0,0) (0,1,0) (0,0,1)"),
        nrrd(RAW, space="scanner-xyz"),
        nrrd(b"", data_file="../../etc/passwd"),
        nrrd(RAW, byte_skip="-2"),
        nrrd(RAW).replace(b"NRRD0004", b"NRRD0004\nSegment0_Name:=liver"),
        b"NRRD0004\ntype: short",
        metaimage(RAW[:-1]),
        metaimage(RAW, DimSize="4 3"),
        metaimage(RAW, ElementType="MET_CHAR_ARRAY"),
        metaimage(RAW, ElementNumberOfChannels="3"),
        metaimage(RAW, BinaryData="False"),
        metaimage(RAW, TransformMatrix="1 0 0"),
        metaimage(RAW, ElementDataFile="slice%03d.raw 1 9 1"),
        metaimage(b"", ElementDataFile="v.raw"),
        metaimage(zlib.compress(RAW)[:-9], CompressedData="True"),
        metaimage(RAW, HeaderSize="-7"),
        metaimage(RAW, HeaderSize="nan"),
        b"ObjectType = Image\n" * 4000,
    ],
)
def test_a_file_that_lies_about_itself_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(VolumeError):
        converted(data, tmp_path)
