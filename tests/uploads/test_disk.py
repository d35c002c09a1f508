"""A disk that is full answers 507, keeps what was acknowledged, and the upload goes on after space is freed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from annotomy.uploads import receive
from annotomy.uploads.part_file import part_file
from tests.support.application import Application
from tests.uploads.test_uploads import CHUNK

DISK_BYTES = 4 << 20


@pytest.fixture
def small_disk(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The uploads' folder on a file system of 4 MiB."""
    folder = application.services.settings.data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system of its own can be mounted here (root can, on most machines)")
    monkeypatch.setattr(receive, "FREE_BYTES", 0)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def create(application: Application, headers: dict[str, str], length: int) -> str:
    told = {"Tus-Resumable": "1.0.0", "Upload-Length": str(length)}
    return (await application.client.post("/api/v1/uploads", headers=headers | told)).headers["location"]


async def send(application: Application, headers: dict[str, str], url: str, offset: int, data: bytes) -> Any:
    return await application.client.patch(url, headers=headers | CHUNK | {"Upload-Offset": str(offset)}, content=data)


async def test_a_write_that_finds_no_room_is_told_and_goes_on_later(application: Application, small_disk: Path) -> None:
    headers, data = await application.headers("owner"), os.urandom(6 << 20)
    url = await create(application, headers, 2 * len(data))
    assert (await send(application, headers, url, 0, data[: 1 << 20])).status_code == 204
    full = await send(application, headers, url, 1 << 20, data[1 << 20 :])
    assert (full.status_code, full.json()["type"]) == (507, "urn:annotomy:problem:disk-full")
    told = await application.client.head(url, headers=headers | {"Tus-Resumable": "1.0.0"})
    assert told.headers["upload-offset"] == str(1 << 20), "what was acknowledged is kept, and no more is claimed"
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert (await send(application, headers, url, 1 << 20, data[1 << 20 :])).status_code == 204
    kept = part_file(application.services, UUID(url.rpartition("/")[2])).read_bytes()
    assert kept == data


async def test_uploads_end_before_the_database_has_no_room(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await application.headers("owner")
    url = await create(application, headers, 100)
    monkeypatch.setattr(receive, "FREE_BYTES", 1 << 60)
    assert (await send(application, headers, url, 0, b"x" * 50)).status_code == 507
    told = {"Tus-Resumable": "1.0.0", "Upload-Length": "100"}
    assert (await application.client.post("/api/v1/uploads", headers=headers | told)).status_code == 507
    monkeypatch.undo()
    assert (await send(application, headers, url, 0, b"x" * 50)).status_code == 204
