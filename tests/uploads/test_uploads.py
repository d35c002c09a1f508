"""Uploads as a tus client makes them, up to the stored study."""

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs

CHUNK = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


async def upload(
    application: Application, headers: dict[str, str], data: bytes, *, chunk: int = 1 << 20, **metadata: str
) -> Any:
    """Sends everything, runs the ingest job and gives the upload's JSON."""
    pairs = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
    create = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(data)), "Upload-Metadata": pairs}
    made = await application.client.post("/api/v1/uploads", headers=headers | create)
    assert made.status_code == 201, made.text
    url = made.headers["location"]
    for at in range(0, len(data), chunk):
        answer = await application.client.patch(
            url, headers=headers | CHUNK | {"Upload-Offset": str(at)}, content=data[at : at + chunk]
        )
        assert answer.status_code == 204, answer.text
    await run_queued_jobs(application.services)
    return (await application.client.get(url, headers=headers)).json()


def zipped(files: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(files):
            archive.writestr(f"../../slice{number}.dcm", data)
    return buffer.getvalue()


def tarred(files: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, data in enumerate(files):
            entry = tarfile.TarInfo(f"slice{number}.dcm")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [zipped, tarred])
async def test_an_archive_becomes_a_study_with_a_word_on_each_file(application: Application, pack: Any) -> None:
    headers = await application.headers("owner")
    found = await upload(application, headers, pack([*ct_series(3), b"a readme"]), chunk=1000, filename="study")
    assert found["state"] == "stored"
    assert [file["state"] for file in found["files"]] == ["stored", "stored", "stored", "refused"]
    assert found["files"][3]["problem"]["type"] == "urn:annotomy:problem:not-dicom"
    listed = (await application.client.get("/dicom-web/studies", headers=headers)).json()
    assert [row["0020000D"]["Value"][0] for row in listed] == found["study_instance_uids"]


async def test_an_archive_in_an_archive_is_refused_by_itself_and_says_why(application: Application) -> None:
    inner = ct_series(2)
    found = await upload(application, await application.headers("owner"), zipped([inner[0], zipped([inner[1]])]))
    assert {file["path"]: file["state"] for file in found["files"]} == {
        "../../slice0.dcm": "stored",  # a label, and no path of ours
        "../../slice1.dcm": "refused",
    }
    [problem] = [file["problem"] for file in found["files"] if file["problem"]]
    assert problem["type"] == "urn:annotomy:problem:unsupported-file"
    assert "archive" in problem["detail"]


async def test_a_single_file_whose_hash_was_announced_is_verified(application: Application) -> None:
    headers = await application.headers("owner")
    [data] = ct_series(1)
    good = await upload(application, headers, data, sha256=hashlib.sha256(data).hexdigest())
    assert good["state"] == "stored"
    bad = await upload(application, headers, data, sha256="00" * 32)
    assert bad["state"] == "failed"
    assert bad["problem"]["type"] == "urn:annotomy:problem:content-mismatch"


async def test_a_nifti_volume_keeps_its_geometry(application: Application, tmp_path: Path) -> None:
    headers = await application.headers("owner")
    affine = np.array([[-0.9, 0, 0, 40], [0, 1.1, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])
    values = np.random.default_rng(5).integers(0, 900, (9, 8, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "v.nii")
    found = await upload(application, headers, gzip.compress((tmp_path / "v.nii").read_bytes()), filename="v.nii.gz")
    assert found["state"] == "stored", found
    study = found["study_instance_uids"][0]
    metadata = (await application.client.get(f"/dicom-web/studies/{study}/metadata", headers=headers)).json()
    first = metadata[0]
    # RAS to LPS, and the rows of an axial slice run from front to back: the first voxel is the last one of NIfTI's j.
    assert first["00200032"]["Value"] == pytest.approx([-40, 30 - 7 * 1.1, 12])
    assert first["00280030"]["Value"] == pytest.approx([1.1, 0.9])
    assert first["00200037"]["Value"] == [1, 0, 0, 0, 1, 0]
    assert (first["00280010"]["Value"], first["00280011"]["Value"]) == ([8], [9])
    assert first["0008103E"]["Value"] == ["v"], "the file's name is what people know it by"


async def test_an_upload_goes_on_where_it_stood(application: Application) -> None:
    headers = await application.headers("owner")
    create = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    url = (await application.client.post("/api/v1/uploads", headers=headers | create)).headers["location"]
    await application.client.patch(url, headers=headers | CHUNK | {"Upload-Offset": "0"}, content=b"12345")
    assert (await application.client.head(url, headers=headers)).headers["upload-offset"] == "5"
    wrong = await application.client.patch(url, headers=headers | CHUNK | {"Upload-Offset": "0"}, content=b"12345")
    assert wrong.status_code == 409
    beyond = await application.client.patch(url, headers=headers | CHUNK | {"Upload-Offset": "5"}, content=b"123456")
    assert beyond.status_code == 413
    digest = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    damaged = await application.client.patch(
        url, headers=headers | CHUNK | {"Upload-Offset": "5", "Upload-Checksum": f"sha256 {digest}"}, content=b"67890"
    )
    assert damaged.status_code == 460
    assert (await application.client.head(url, headers=headers)).headers["upload-offset"] == "5"
    stranger = await application.headers("stranger")
    assert (await application.client.head(url, headers=stranger)).status_code == 404


async def test_what_is_over_the_limit_is_refused_before_its_bytes(application: Application) -> None:
    headers = await application.headers("owner")
    create = {"Tus-Resumable": "1.0.0", "Upload-Length": str(1 << 50)}
    answer = await application.client.post("/api/v1/uploads", headers=headers | create)
    assert answer.status_code == 413
    assert answer.json()["limit_bytes"] == 64 << 30


@pytest.mark.parametrize(
    "data",
    [b"plain text", zipped([b"\0" * (300 << 20)]), gzip.compress(b"x" * 600), zipped([])[:10]],
    ids=["text", "bomb", "packed text", "cut archive"],  # gzip writes the time, so its bytes name no test
)
async def test_junk_and_bombs_fail_with_a_reason(application: Application, data: bytes) -> None:
    found = await upload(application, await application.headers("owner"), data)
    assert found["state"] == "failed"
    assert found["problem"]["status"] in (400, 413, 415)
