"""Volumes, stacks of pictures and media that come as uploads."""

import base64
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from tests.dicom.test_volume_files import RAW, metaimage, nrrd
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.uploads.test_uploads import upload

FORM = {"pixel_spacing_mm": [0.5, 0.75], "slice_spacing_mm": 3, "modality": "CT", "rescale_intercept": -1024}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_zst(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return zstandard.compress(buffer.getvalue())


def picture(values: Any, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form)
    return buffer.getvalue()


def media_directory(*files: str) -> bytes:
    directory = Dataset()
    directory.DirectoryRecordSequence = []
    for file in files:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = file.split("/")
        directory.DirectoryRecordSequence.append(record)
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["media"])
    buffer = io.BytesIO()
    directory.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def states(found: Any) -> dict[str, str]:
    return {file["path"]: file["state"] for file in found["files"]}


async def metadata_of(application: Application, headers: dict[str, str], found: Any) -> list[Any]:
    [study] = found["study_instance_uids"]
    answer = await application.client.get(f"/dicom-web/studies/{study}/metadata", headers=headers)
    return sorted(answer.json(), key=lambda one: one["00200013"]["Value"][0])


@pytest.mark.parametrize("data", [nrrd(RAW), metaimage(RAW)], ids=["nrrd", "mha"])
async def test_a_volume_becomes_a_series_and_is_known_when_it_comes_again(
    application: Application, data: bytes
) -> None:
    headers = await application.headers("owner")
    found = await upload(application, headers, data, filename="head.mha")
    assert found["state"] == "stored", found
    assert [file["path"] for file in found["files"]] == ["head.mha slice 1", "head.mha slice 2"]
    first = (await metadata_of(application, headers, found))[0]
    assert first["0008103E"]["Value"] == ["head"]
    assert first["00280030"]["Value"] == pytest.approx([1.25, 0.5])
    again = await upload(application, headers, data, filename="head.mha")
    assert [file["state"] for file in again["files"]] == ["already", "already"]
    assert again["study_instance_uids"] == found["study_instance_uids"]


@pytest.mark.parametrize("pack", [zipped, tar_zst])
async def test_detached_headers_find_their_data_in_the_archive_and_what_is_wrong_is_told_by_file(
    application: Application, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    headers = await application.headers("owner")
    files = {
        "a/V.RAW": RAW,
        "a/v.mhd": metaimage(b"", ElementDataFile="v.raw"),
        "b/n.nhdr": nrrd(b"", data_file="n.raw"),
        "b/n.raw": RAW,
        "c/lost.nhdr": nrrd(b"", data_file="lost.raw"),
        "c/short.nrrd": nrrd(RAW[:-2]),
        "c/stray.raw": b"nobody asks for it",
        "d/1.dcm": ct_series(1)[0],
    }
    found = await upload(application, headers, pack(files), filename="all")
    assert found["state"] == "stored", found
    assert states(found) == {
        "d/1.dcm": "stored",
        "a/v.mhd slice 1": "stored", "a/v.mhd slice 2": "stored", "a/V.RAW": "used",
        "b/n.nhdr slice 1": "stored", "b/n.nhdr slice 2": "stored", "b/n.raw": "used",
        "c/lost.nhdr": "refused", "c/short.nrrd": "refused", "c/stray.raw": "refused",
    }  # fmt: skip
    slugs = {file["path"]: file["problem"]["type"] for file in found["files"] if file["problem"]}
    assert slugs["c/lost.nhdr"] == slugs["c/short.nrrd"] == "urn:annotomy:problem:volume-unreadable"
    assert slugs["c/stray.raw"] == "urn:annotomy:problem:not-dicom"
    left = [one.name for one in (application.services.settings.data_dir / "uploads").iterdir()]
    assert left == [], "nothing waits beside the uploads any more"


async def test_pictures_with_a_form_become_a_series_in_the_order_of_their_names(application: Application) -> None:
    headers = await application.headers("owner")
    slices = [np.full((4, 6), 1000 + n, np.uint16) for n in range(11)]
    files = {f"s/slice{n}.png": picture(one) for n, one in enumerate(slices)}
    found = await upload(application, headers, zipped(files), filename="stack.zip", geometry=json.dumps(FORM))
    assert found["state"] == "stored", found
    assert set(states(found).values()) == {"stored"}
    assert found["files"][2]["path"] == "s/slice2.png"
    rows = await metadata_of(application, headers, found)
    assert [row["00200032"]["Value"] for row in rows] == [[0, 0, 3 * n] for n in range(11)]
    assert rows[0]["00280030"]["Value"] == [0.5, 0.75]
    assert rows[0]["00080060"]["Value"] == ["CT"]
    last = rows[10]["00080018"]["Value"][0]
    url = f"/dicom-web/studies/{found['study_instance_uids'][0]}/series/{rows[10]['0020000E']['Value'][0]}/instances/{last}/frames/1"
    frame = await application.client.get(
        url, headers=headers | {"Accept": 'multipart/related; type="application/octet-stream"'}
    )
    stored = np.frombuffer(frame.content.split(b"\r\n\r\n", 1)[1][:48], "<i2")
    slope, intercept = (rows[10][tag]["Value"][0] for tag in ("00281053", "00281052"))
    assert np.unique(stored * slope + intercept).tolist() == [1010 - 1024], "Hounsfield units are kept"


async def test_a_form_lies_beside_the_pictures_and_a_tiff_has_many_pages(application: Application) -> None:
    headers = await application.headers("owner")
    pages = [Image.fromarray(np.full((4, 6), n, np.uint8)) for n in range(3)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    grey_in_colour = np.repeat(np.full((8, 8, 1), 7, np.uint8), 3, axis=2)
    files = {
        "geometry.json": json.dumps(FORM | {"orientation": "sagittal"}).encode(),
        "t/pages.tif": buffer.getvalue(),
        "j/1.jpg": picture(grey_in_colour, "JPEG"),
        "c/1.png": picture(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)),
        "w/1.png": picture(np.zeros((4, 4), np.uint8)),
        "w/geometry.json": b'{"pixel_spacing_mm": [0, 1]}',
    }
    found = await upload(application, headers, zipped(files), filename="mixed.zip")
    assert states(found) == {
        "t/pages.tif slice 1": "stored", "t/pages.tif slice 2": "stored", "t/pages.tif slice 3": "stored",
        "j/1.jpg": "stored", "geometry.json": "used", "c/1.png": "refused", "w/1.png": "refused",
        "w/geometry.json": "refused",
    }  # fmt: skip


async def test_pictures_without_a_form_are_refused_and_a_bad_form_before_any_byte(application: Application) -> None:
    headers = await application.headers("owner")
    found = await upload(application, headers, picture(np.zeros((4, 4), np.uint8)), filename="one.png")
    assert found["state"] == "failed"
    assert found["problem"]["type"] == "urn:annotomy:problem:geometry-missing"
    for form in ('{"pixel_spacing_mm": [1, 1, 1]}', "no json", '{"slice_spacing_mm": -1}', '{"patient": "x"}'):
        pairs = f"geometry {base64.b64encode(form.encode()).decode()}"
        create = {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": pairs}
        answer = await application.client.post("/api/v1/uploads", headers=headers | create)
        assert answer.status_code == 400, form


async def test_a_picture_that_announces_too_many_pixels_is_refused_before_it_is_decoded(
    application: Application,
) -> None:
    bomb = bytearray(picture(np.zeros((8, 8), np.uint8)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    found = await upload(
        application, await application.headers("owner"), bytes(bomb), filename="b.png", geometry=json.dumps(FORM)
    )
    assert found["state"] == "failed"
    assert "more pixels" in found["problem"]["detail"]


async def test_a_medium_is_taken_in_and_its_missing_files_are_named(application: Application) -> None:
    headers = await application.headers("owner")
    first, second = ct_series(2)
    files = {
        "cd/DICOMDIR": media_directory("DICOM/IM0001", "DICOM/IM0002", "DICOM/IM0003"),
        "cd/dicom/im0001": first,
        "cd/DICOM/IM0002.;1": second,
        "cd/AUTORUN.INF": b"[autorun]",
    }
    found = await upload(application, headers, zipped(files), filename="cd.zip")
    assert found["state"] == "stored"
    assert states(found) == {
        "cd/dicom/im0001": "stored", "cd/DICOM/IM0002.;1": "stored", "cd/AUTORUN.INF": "refused",
        "cd/DICOMDIR": "used", "cd/DICOM/IM0003": "refused",
    }  # fmt: skip
    [missing] = [file for file in found["files"] if file["path"] == "cd/DICOM/IM0003"]
    assert missing["problem"]["type"] == "urn:annotomy:problem:media-file-missing"


async def test_a_zstd_stream_that_is_a_bomb_or_damaged_is_refused(application: Application) -> None:
    headers = await application.headers("owner")
    bomb = await upload(application, headers, tar_zst({"zeros": bytes(300 << 20)}))
    assert (bomb["state"], bomb["problem"]["status"]) == ("failed", 413)
    cut = await upload(application, headers, tar_zst({"1.dcm": ct_series(1)[0], "2": bytes(9999)})[:-100])
    assert (cut["state"], cut["problem"]["status"]) == ("failed", 415)
    other = await upload(application, headers, zstandard.compress(b"x" * 600))
    assert (other["state"], other["problem"]["status"]) == ("failed", 415)
