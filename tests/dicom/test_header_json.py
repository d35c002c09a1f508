"""Headers told as DICOM JSON, one after another: the same as pydicom tells of each alone, whatever was told before."""

import io
import json
import logging
import warnings
from typing import Any

import msgspec
import zstandard
from pydicom import dcmread

from annotomy.archive.errors import NotDicom
from annotomy.archive.parse import parse_instance
from annotomy.dicom.attributes import plain_json, whole_json_of
from annotomy.dicom.header_json import HeaderJson
from annotomy.dicomweb.bulkdata import bulk_path
from annotomy.dicomweb.metadata import BULK_THRESHOLD_BYTES
from tests.support.dicom_files import ct_series, edited
from tests.support.mutations import MAX_SOURCE_BYTES, mutations, packaged_files

MUTATIONS = 1500
BASE = "/dicom-web/x"


def _alone(header: bytes) -> dict[str, Any]:
    dataset = dcmread(io.BytesIO(header), stop_before_pixels=True)
    found = whole_json_of(dataset, BULK_THRESHOLD_BYTES, lambda one: f"{BASE}/bulkdata/{bulk_path(dataset, one)}")
    for name in [name for name in found if name.startswith("0028") and "BulkDataURI" in found[name]]:
        found[name] = dataset[int(name, 16)].to_json_dict(None, 1 << 30)
    return json.loads(msgspec.json.encode(found, enc_hook=plain_json))


def _told(encoder: HeaderJson, header: bytes) -> dict[str, Any]:
    body = encoder.encode(header, base=BASE, sent_as="1.2", half_chroma_as_rgb=False, frames=False)
    found = json.loads(body)
    assert found.pop("00083002") == {"vr": "UI", "Value": ["1.2"]}
    return found


def _agree(files: list[bytes]) -> int:
    """One encoder for all of them, each twice: what it remembers of one file must not colour another."""
    encoder = HeaderJson(bulk_path, BULK_THRESHOLD_BYTES)
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            for file in files:
                try:
                    kept = parse_instance(file).header
                except NotDicom:
                    continue
                header = zstandard.ZstdDecompressor().decompress(kept, max_output_size=1 << 28)
                alone = _alone(header)
                alone.pop("00083002", None)
                assert _told(encoder, header) == alone
                assert _told(encoder, header) == alone, "told from memory"
                compared += 1
        finally:
            logging.disable(logging.NOTSET)
    return compared


def test_every_file_is_told_as_pydicom_tells_it() -> None:
    files = [path.read_bytes() for path in packaged_files() if path.stat().st_size <= MAX_SOURCE_BYTES]
    assert _agree(files) > 60


def test_damaged_files_are_told_as_pydicom_tells_them() -> None:
    sources = [path.read_bytes() for path in packaged_files() if path.stat().st_size <= MAX_SOURCE_BYTES]
    assert _agree([*mutations([*sources, *ct_series(1)], MUTATIONS, seed=20260705)]) > MUTATIONS // 20


def test_the_same_bytes_are_another_text_in_another_character_set() -> None:
    base = ct_series(1)[0]
    latin = edited(base, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^J")
    greek = latin.replace(b"ISO_IR 100", b"ISO_IR 126")
    yen = edited(base, SpecificCharacterSet="ISO_IR 13", StudyDescription="a~b")
    assert _agree([latin, greek, yen, base, latin]) == 5


def test_an_address_is_that_of_its_instance() -> None:
    encoder = HeaderJson(bulk_path, BULK_THRESHOLD_BYTES)
    file = edited(ct_series(1)[0], EncapsulatedDocument=b"\1" * 4000)
    header = zstandard.ZstdDecompressor().decompress(parse_instance(file).header)
    for base in ("/a", "/b"):
        found = json.loads(encoder.encode(header, base=base, sent_as="1.2", half_chroma_as_rgb=False, frames=True))
        assert found["00420011"]["BulkDataURI"] == f"{base}/bulkdata/00420011"
        assert found["7FE00010"]["BulkDataURI"] == f"{base}/frames"
