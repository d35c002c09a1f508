"""A real PACS as a remote: Orthanc, over DICOMweb and over DIMSE. Its siblings that run anywhere are in tests/remotes."""

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.remotes.hospital import SERIES, STUDY, Hospital, allow_loopback, project_with_remote
from tests.remotes.test_bring import bring, kept
from tests.remotes.test_push import ask as ask_push
from tests.remotes.test_push import attempt
from tests.support.application import Application
from tests.support.dicom_files import ct_series

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_S = 30.0
TITLE = "ORTHANC"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@dataclass
class Orthanc:
    folder: Path
    http_port: int
    dicom_port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    async def start(self) -> None:
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
        assert program is not None
        settings: dict[str, Any] = {
            "HttpPort": self.http_port, "DicomPort": self.dicom_port, "DicomAet": TITLE, "AuthenticationEnabled": False,
            "StorageDirectory": str(self.folder), "IndexDirectory": str(self.folder), "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowStore": True, "DicomModalities": {"us": ["ANNOTOMY", "127.0.0.1", 1]},
        }  # fmt: skip
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        self.process = await asyncio.create_subprocess_exec(
            program, str(configuration), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(START_S), httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.address}/system")).status_code == 200:
                        return
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def instances(self) -> int:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.address}/statistics")).json()["CountInstances"]


@pytest.fixture
async def orthanc(tmp_path: Path) -> AsyncGenerator[Orthanc]:
    if not (shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin") and PLUGIN.exists()):
        pytest.skip("Orthanc with its DICOMweb plugin is not installed")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    started = Orthanc(folder, free_port(), free_port())
    await started.start()
    try:
        yield started
    finally:
        await started.kill()


async def beside(application: Application, orthanc: Orthanc, kind: str) -> Hospital:
    allow_loopback(application.services)
    address: dict[str, Any] = {"url": f"{orthanc.address}/dicom-web"}
    if kind == "dimse":
        address = {"host": "127.0.0.1", "port": orthanc.dicom_port, "ae_title": TITLE, "commitment": True}
    remote_id, project_id = await project_with_remote(application, {"name": TITLE, "kind": kind, kind: address})
    files = ct_series(12, study_instance_uid=STUDY, series_instance_uid=SERIES)
    return Hospital(application, None, files, remote_id, project_id)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["dicomweb", "dimse"])
async def test_a_study_goes_to_orthanc_is_found_there_and_comes_back_bit_for_bit(
    application: Application, orthanc: Orthanc, kind: str
) -> None:
    hospital = await beside(application, orthanc, kind)
    echo = (await hospital.post_as("admin", f"/remotes/{hospital.remote_id}/echo")).json()
    assert echo["ok"], echo
    owner = await hospital.actor("owner")
    await hospital.keep(owner, hospital.project_id, hospital.files)
    told = await attempt(hospital, await ask_push(hospital))
    assert told["state"] in ("sent", "committed"), told
    assert await orthanc.instances() == len(hospital.files)
    here = await kept(hospital)
    await hospital.forget()
    [row] = (await hospital.query(PatientName="Test*")).json()["items"]
    assert row["study_instance_uid"] == STUDY
    told = await bring(hospital)
    assert (told["state"], told["present"]) == ("succeeded", len(hospital.files)), told
    back = await kept(hospital)
    assert back.keys() == here.keys()
    if kind == "dicomweb":
        assert back == here


async def test_orthanc_that_is_killed_and_restarted_in_the_middle_loses_nothing(
    application: Application, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = await beside(application, orthanc, "dicomweb")
    owner = await hospital.actor("owner")
    await hospital.keep(owner, hospital.project_id, hospital.files[:1])
    async with httpx.AsyncClient() as client:
        for file in hospital.files:
            assert (await client.post(f"{orthanc.address}/instances", content=file)).status_code == 200
    # One is here already, so that the others are asked for one by one: after the third the PACS dies.
    from annotomy.remotes import bring as bringing

    tell = bringing._Bringing.tell  # pyright: ignore[reportPrivateUsage]
    deaths: list[int] = []

    async def deadly(self: Any, came: int) -> None:
        await tell(self, came)
        if came == 3 and not deaths:
            deaths.append(came)
            await orthanc.kill()

    monkeypatch.setattr(bringing._Bringing, "tell", deadly)  # pyright: ignore[reportPrivateUsage]

    async def restarted() -> None:
        while not deaths:
            await asyncio.sleep(0.02)
        assert orthanc.process is not None
        await orthanc.process.wait()
        await orthanc.start()

    restarting = asyncio.create_task(restarted())
    told = await bring(hospital, between=restarting)
    await restarting
    assert deaths == [3]
    assert (told["state"], told["present"]) == ("succeeded", len(hospital.files)), told
    assert sorted((await kept(hospital)).values()) == sorted(hospital.files)
