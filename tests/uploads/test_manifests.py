"""Study manifests: what is missing is asked for, what is there is not, and the end is the manifest's, not a timer's."""

import base64
import hashlib
import io
import zipfile
from typing import Any

import pytest
from blake3 import blake3

from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs

TUS = {"Tus-Resumable": "1.0.0"}


def announced(files: dict[str, bytes], name: str = "blake3") -> list[dict[str, Any]]:
    hashes = {"blake3": blake3, "sha256": hashlib.sha256}
    return [{"path": path, "size": len(data), name: hashes[name](data).hexdigest()} for path, data in files.items()]


async def manifest(
    application: Application, headers: dict[str, str], files: dict[str, bytes], name: str = "blake3"
) -> Any:
    answer = await application.client.post(
        "/api/v1/study-manifests", headers=headers, json={"files": announced(files, name)}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def send(application: Application, headers: dict[str, str], data: bytes, **metadata: str) -> Any:
    pairs = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
    made = await application.client.post(
        "/api/v1/uploads",
        headers=headers
        | TUS
        | {
            "Upload-Length": str(len(data)),
            "Upload-Metadata": pairs,
            "Content-Type": "application/offset+octet-stream",
        },
        content=data,
    )
    assert made.status_code == 201, made.text
    await run_queued_jobs(application.services)
    return (await application.client.get(made.headers["location"], headers=headers)).json()


async def again(application: Application, headers: dict[str, str], manifest_id: str) -> Any:
    return (await application.client.get(f"/api/v1/study-manifests/{manifest_id}", headers=headers)).json()


def pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return buffer.getvalue()


def folder(slices: int) -> dict[str, bytes]:
    return {f"study/slice {number}.dcm": data for number, data in enumerate(ct_series(slices))}


@pytest.mark.parametrize("name", ["blake3", "sha256"])
async def test_a_study_is_complete_when_each_of_its_files_has_come(application: Application, name: str) -> None:
    headers = await application.headers("owner")
    files = folder(3)
    made = await manifest(application, headers, files, name)
    assert (made["state"], made["missing"]) == ("incomplete", list(files))
    first, *rest = files
    found = await send(application, headers, files[first], relative_path=first, manifest_id=made["id"])
    assert found["state"] == "stored", found
    assert (await again(application, headers, made["id"]))["missing"] == rest
    found = await send(
        application, headers, pack({path: files[path] for path in rest}), filename="pack.zip", manifest_id=made["id"]
    )
    assert found["state"] == "stored", found
    ended = await again(application, headers, made["id"])
    assert (ended["state"], ended["missing"], ended["counts"]["stored"]) == ("complete", [], 3)
    assert ended["study_instance_uids"] == found["study_instance_uids"]
    repeated = await manifest(application, headers, files, name)
    assert (repeated["state"], repeated["counts"]["already"]) == ("complete", 3)


async def test_what_others_have_is_asked_for_all_the_same(application: Application) -> None:
    files = folder(2)
    owner, stranger = await application.headers("owner"), await application.headers("stranger")
    made = await manifest(application, owner, files)
    await send(application, owner, pack(files), filename="pack.zip", manifest_id=made["id"])
    assert (await manifest(application, owner, files))["state"] == "complete"
    assert (await manifest(application, stranger, files))["missing"] == list(files)
    assert (await application.client.get(f"/api/v1/study-manifests/{made['id']}", headers=stranger)).status_code == 404
    foreign = await application.client.post(
        "/api/v1/uploads",
        headers=stranger | TUS | {
            "Upload-Length": "3", "Upload-Metadata": f"manifest_id {base64.b64encode(made['id'].encode()).decode()}",
        },
    )  # fmt: skip
    assert foreign.status_code == 404


async def test_a_damaged_file_stays_missing_and_a_foreign_one_is_refused(application: Application) -> None:
    headers = await application.headers("owner")
    files = folder(2)
    first, second = files
    made = await manifest(application, headers, files)
    damaged = bytearray(files[first])
    damaged[-1] ^= 1
    packed = pack({first: bytes(damaged), second: files[second], "other.dcm": ct_series(1)[0]})
    found = await send(application, headers, packed, filename="pack.zip", manifest_id=made["id"])
    problems = {file["path"]: (file["problem"] or {}).get("type", "").rpartition(":")[2] for file in found["files"]}
    assert problems == {second: "", first: "content-mismatch", "other.dcm": "not-in-manifest"}
    assert (await again(application, headers, made["id"]))["missing"] == [first]
    whole = await send(application, headers, bytes(damaged), relative_path=first, manifest_id=made["id"])
    assert (whole["state"], whole["problem"]["type"].rpartition(":")[2]) == ("failed", "content-mismatch")
    assert (await again(application, headers, made["id"]))["missing"] == [first]
    await send(application, headers, files[first], relative_path=first, manifest_id=made["id"])
    assert (await again(application, headers, made["id"]))["state"] == "complete"


async def test_a_file_that_can_never_be_stored_ends_as_refused_with_its_reason(application: Application) -> None:
    headers = await application.headers("owner")
    files = folder(1) | {"study/readme.txt": b"not an image"}
    made = await manifest(application, headers, files)
    await send(application, headers, pack(files), filename="pack.zip", manifest_id=made["id"])
    ended = await again(application, headers, made["id"])
    assert (ended["state"], ended["counts"]["stored"], ended["counts"]["refused"]) == ("complete", 1, 1)
    listed = await application.client.get(f"/api/v1/study-manifests/{made['id']}/files?limit=1", headers=headers)
    following = await application.client.get(
        f"/api/v1/study-manifests/{made['id']}/files?limit=1&cursor={listed.json()['next']}", headers=headers
    )
    assert listed.json()["items"][0]["state"] == "stored"
    assert following.json()["items"][0]["problem"]["type"].endswith("not-dicom")


@pytest.mark.parametrize(
    "files",
    [
        [],
        [{"path": "a", "size": 1}],
        [{"path": "a", "size": 1, "blake3": "00" * 32, "sha256": "00" * 32}],
        [{"path": "a", "size": -1, "blake3": "00" * 32}],
        [{"path": "", "size": 1, "blake3": "00" * 32}],
        [{"path": "a", "size": 1, "blake3": "xyz"}],
        [{"path": "a", "size": 1, "blake3": "00" * 32}, {"path": "a", "size": 2, "blake3": "11" * 32}],
    ],
)
async def test_a_manifest_that_says_nothing_clear_is_refused(application: Application, files: Any) -> None:
    headers = await application.headers("owner")
    answer = await application.client.post("/api/v1/study-manifests", headers=headers, json={"files": files})
    assert answer.status_code == 400
