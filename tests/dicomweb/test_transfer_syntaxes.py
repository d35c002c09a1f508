"""Frames in the transfer syntax that is asked for: as stored, uncompressed, as HTJ2K; and HTJ2K that is stored."""

import io
from email import message_from_bytes
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from annotomy.dicom.pixels import HTJ2K, decode_frame, encode_htj2k
from annotomy.dicomweb import wado
from annotomy.dicomweb.wado import HTJ2K_SYNTAXES
from tests.dicomweb.test_dicomweb import stow
from tests.support import codestreams
from tests.support.application import Application
from tests.support.dicom_files import ct_series

MONO: dict[str, Any] = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
RNG = np.random.default_rng(7)


def htj2k_file(values: np.ndarray[Any, Any], syntax: str, **fields: Any) -> bytes:
    size = values.dtype.itemsize * 8
    described = {"Rows": values.shape[0], "Columns": values.shape[1], "BitsAllocated": size, "BitsStored": size,
                 "HighBit": size - 1, "PixelRepresentation": int(values.dtype.kind == "i")}  # fmt: skip
    return codestreams.image(syntax=syntax, frames=[encode_htj2k(values)], **(described | fields))


async def get_frame(application: Application, headers: dict[str, str], file: bytes, accept: str) -> tuple[str, bytes]:
    """The type of the part and what is in it."""
    at = dcmread(io.BytesIO(file))
    path = (
        f"/dicom-web/studies/{at.StudyInstanceUID}/series/{at.SeriesInstanceUID}/instances/{at.SOPInstanceUID}/frames/1"
    )
    answer = await application.client.get(path, headers=headers | {"Accept": accept})
    assert answer.status_code == 200, answer.text
    message = message_from_bytes(
        b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    )
    [part] = message.get_payload()  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
    boundary = answer.headers["content-type"].rpartition("boundary=")[2].encode()
    body = answer.content.split(b"\r\n\r\n", 1)[1].rpartition(b"\r\n--" + boundary)[0]
    return str(part["content-type"]), body  # pyright: ignore[reportIndexIssue, reportArgumentType]


@pytest.mark.parametrize("syntax", HTJ2K_SYNTAXES)
async def test_a_frame_is_transcoded_to_htj2k_where_that_is_asked(application: Application, syntax: str) -> None:
    headers = await application.headers("owner")
    [file] = ct_series(1)
    await stow(application, headers, [file])
    accept = f'multipart/related; type="image/jphc"; transfer-syntax={syntax}, multipart/related; type="application/octet-stream"; q=0.5'
    kind, body = await get_frame(application, headers, file, accept)
    assert kind == f"image/jphc; transfer-syntax={syntax}"
    stored = dcmread(io.BytesIO(file))
    assert np.array_equal(imagecodecs.htj2k_decode(body), stored.pixel_array)
    coding = body.index(b"\xff\x52")
    assert body[coding + 5] == 2, "RPCL (ISO/IEC 15444-1 table A.16)"
    assert b"\xff\x55" in body[: body.index(b"\xff\x90")], "lengths of the tile parts stand in front of them"
    # Another decoder reads it as well, from a DICOM file.
    stored.file_meta.TransferSyntaxUID = UID(syntax)
    stored.PixelData = encapsulate([body])
    stored["PixelData"].VR, stored["PixelData"].is_undefined_length = "OB", True
    assert np.array_equal(pixel_array(stored, decoding_plugin="pylibjpeg"), dcmread(io.BytesIO(file)).pixel_array)


async def test_the_media_type_alone_asks_for_it_and_what_is_not_made_is_refused(application: Application) -> None:
    headers = await application.headers("owner")
    [file] = ct_series(1)
    await stow(application, headers, [file])
    kind, _ = await get_frame(application, headers, file, 'multipart/related; type="image/jphc"')
    assert kind == f"image/jphc; transfer-syntax={HTJ2K_SYNTAXES[0]}"
    for accept in ("*/*", 'multipart/related; type="application/octet-stream"; transfer-syntax=*', "multipart/related"):
        kind, _ = await get_frame(application, headers, file, accept)
        assert kind == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    at = dcmread(io.BytesIO(file))
    path = (
        f"/dicom-web/studies/{at.StudyInstanceUID}/series/{at.SeriesInstanceUID}/instances/{at.SOPInstanceUID}/frames/1"
    )
    for syntax in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.203"):
        accept = f'multipart/related; type="image/jp2"; transfer-syntax={syntax}'
        answer = await application.client.get(path, headers=headers | {"Accept": accept})
        assert (answer.status_code, "as stored" in answer.json()["detail"]) == (406, True)


@pytest.mark.parametrize(("syntax", "dtype"), zip(sorted(HTJ2K), ("u1", "u2", "i2"), strict=True))
async def test_stored_htj2k_goes_out_as_it_is_and_uncompressed_where_that_is_named(
    application: Application, syntax: str, dtype: str
) -> None:
    headers = await application.headers("owner")
    values = RNG.integers(0, 200, (20, 24)).astype(dtype)
    file = htj2k_file(values, syntax, **MONO)
    assert (await stow(application, headers, [file])).status_code == 200
    any_syntax = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    kind, body = await get_frame(application, headers, file, any_syntax)
    stream = encode_htj2k(values)
    assert kind == f"image/jphc; transfer-syntax={syntax}"
    assert body == stream + b"\0" * (len(stream) % 2), "the fragment, padded as it is stored"
    plain = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'
    kind, body = await get_frame(application, headers, file, plain)
    assert kind == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    assert np.array_equal(np.frombuffer(body, f"<{dtype}").reshape(values.shape), values)


def test_both_decoders_of_htj2k_agree_and_colour_is_rgb() -> None:
    for values in (
        RNG.integers(-900, 900, (33, 17)).astype(np.int16),
        RNG.integers(0, 4096, (64, 64)).astype(np.uint16),
    ):
        dataset = dcmread(io.BytesIO(htj2k_file(values, codestreams.HTJ2K, **MONO)))
        assert np.array_equal(decode_frame(dataset, 0), values)
        assert np.array_equal(pixel_array(dataset, decoding_plugin="pylibjpeg"), values)
    few_bits = RNG.integers(0, 255, (8, 8)).astype(np.uint8)
    dataset = dcmread(
        io.BytesIO(htj2k_file(few_bits, codestreams.HTJ2K, **MONO, BitsAllocated=16, BitsStored=8, HighBit=7))
    )
    assert decode_frame(dataset, 0).dtype == np.uint16
    colour = RNG.integers(0, 255, (16, 16, 3)).astype(np.uint8)
    fields: dict[str, Any] = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_RCT", "PlanarConfiguration": 0}
    dataset = dcmread(io.BytesIO(htj2k_file(colour, codestreams.HTJ2K, **fields)))
    assert np.array_equal(decode_frame(dataset, 0), colour)


@pytest.mark.parametrize("ahead_bytes", [0, 1 << 20])
async def test_instances_come_whole_and_in_order_whether_they_are_read_ahead_or_streamed(
    application: Application, monkeypatch: pytest.MonkeyPatch, ahead_bytes: int
) -> None:
    monkeypatch.setattr(wado, "AHEAD_BYTES", ahead_bytes)
    headers = await application.headers("owner")
    files = ct_series(4)
    await stow(application, headers, files)
    path = f"/dicom-web/studies/{dcmread(io.BytesIO(files[0])).StudyInstanceUID}"
    answer = await application.client.get(path, headers=headers)
    boundary = answer.headers["content-type"].rpartition("boundary=")[2].encode()
    parts = answer.content.split(b"--" + boundary)
    assert [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts[1:-1]] == files
    assert parts[-1].strip() == b"--"
