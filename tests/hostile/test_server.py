"""The hostile set against a real `annotomy serve`: a word on each file, the rest stored, no fault, bounded memory and time."""

import base64
import re
import time
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.hostile.files import FILES, SECRET, UPLOADS, Case, ct, cut_everywhere, good, zipped
from tests.support.serve import Serve, wait_until

BOUNDARY = "boundary-of-a-test"
MAX_GROWTH_BYTES = 300 << 20
"""Peak of each server process over what it had before; decoding children have limits of their own."""
MAX_SECONDS = 40.0
"""For one file, on a machine that does other work; alone each takes less than two seconds."""
PICTURES = ("rendered", "frames/1", "frames/1/rendered", "thumbnail")

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    folder = tmp_path_factory.mktemp("hostile") / "data"
    running = Serve(folder, ANNOTOMY_HTTP_PROCESSES="1", ANNOTOMY_WORKERS_INLINE="1").start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: Serve) -> Generator[httpx.Client]:
    with server.client() as signed_in:
        signed_in.timeout = httpx.Timeout(120)
        yield signed_in


class Memory:
    """The peak memory of each of the server's Python processes, against what it was at the beginning."""

    def __init__(self, server: Serve) -> None:
        assert server.process is not None
        self._root = psutil.Process(server.process.pid)
        self._before = {process.pid: process.memory_info().rss for process in self._own()}

    def grown(self) -> dict[int, int]:
        return {
            process.pid: _peak_bytes(process.pid) - self._before.get(process.pid, 0)
            for process in self._own()
            if process.pid in self._before
        }

    def _own(self) -> list[psutil.Process]:
        found = [self._root, *self._root.children(recursive=True)]
        return [p for p in found if "annotomy.dicom.decoding" not in p.cmdline() and "postgres" not in p.name()]


def _peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) << 10


def stow(client: httpx.Client, files: list[bytes]) -> dict[str, Any]:
    parts = [f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n" for data in files]
    headers = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
    answer = client.post(
        "/dicom-web/studies", content=b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), headers=headers
    )
    assert answer.status_code in (200, 202, 409), answer.text
    return answer.json()


def stored_instances(client: httpx.Client) -> int:
    return len(client.get("/dicom-web/instances?limit=5000").raise_for_status().json())


def assert_readable(client: httpx.Client, url: str) -> None:
    """Whatever was stored comes back, or says why not; never a fault of the server."""
    path = httpx.URL(url).path
    for suffix in ("", "/metadata", *(f"/{picture}" for picture in PICTURES)):
        began = time.monotonic()
        answer = client.get(path + suffix)
        assert answer.status_code in (200, 404, 406), f"{suffix}: {answer.status_code} {answer.text[:300]}"
        assert time.monotonic() - began < MAX_SECONDS, suffix
        if suffix in ("", "/metadata"):
            assert answer.status_code == 200, suffix
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not answer.headers["content-type"].startswith("text/html")


def test_each_hostile_file_by_stow_is_answered_and_its_neighbours_are_stored(
    server: Serve, client: httpx.Client
) -> None:
    stow(client, [good()])  # what is loaded at the first use is no growth
    memory, before = Memory(server), stored_instances(client)
    expected, wrong = before, list[str]()
    for case in FILES:
        data, began = case.make(), time.monotonic()
        answer = stow(client, [good(), data, good()])
        seconds = time.monotonic() - began
        kept = [item["00081190"]["Value"][0] for item in answer["00081199"]["Value"]]
        fate = "stored" if len(kept) == 3 else "refused"
        expected += len(kept)
        if len(kept) not in (2, 3) or (case.fate not in ("either", fate)) or seconds > MAX_SECONDS:
            wrong.append(f"{case.name}: {len(kept)} kept of 3, {seconds:.1f} s")
        assert SECRET not in str(answer)
        if fate == "stored":
            try:
                assert_readable(client, kept[1])
            except AssertionError as failed:
                wrong.append(f"{case.name}: {failed}")
    assert not wrong, "\n".join(wrong)
    assert stored_instances(client) == expected, "nothing that was refused is visible"
    _assert_sound(server, client, memory)


def _assert_sound(server: Serve, client: httpx.Client, memory: Memory) -> None:
    assert client.get("/readyz").status_code == 200
    assert max(memory.grown().values()) < MAX_GROWTH_BYTES, memory.grown()
    told = "\n".join(server.log)
    assert SECRET not in told
    assert "request.failed" not in told
    assert "job.failed" not in told


def upload(client: httpx.Client, data: bytes, name: str) -> dict[str, Any]:
    told = base64.b64encode(name.encode()).decode()
    tus = {"Tus-Resumable": "1.0.0"}
    made = client.post(
        "/api/v1/uploads", headers=tus | {"Upload-Length": str(len(data)), "Upload-Metadata": f"filename {told}"}
    )
    assert made.status_code == 201, made.text
    url = made.headers["location"]
    chunk = tus | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert client.patch(url, headers=chunk, content=data).status_code == 204

    def ended() -> bool:
        return client.get(url).json()["state"] in ("stored", "failed")

    wait_until(ended, f"{name} has an end", timeout_s=120)
    return client.get(url).json()


def test_each_hostile_upload_ends_with_a_word_and_the_worker_lives(server: Serve, client: httpx.Client) -> None:
    upload(client, zipped({"a.dcm": good()}), "warm.zip")
    memory, wrong = Memory(server), list[str]()
    for case in UPLOADS:
        found = upload(client, case.make(), case.name)
        fate = "stored" if found["state"] == "stored" else "refused"
        problems = [found["problem"], *(file["problem"] for file in found["files"])]
        if case.fate not in ("either", fate):
            wrong.append(f"{case.name}: {found['state']} {found['problem']}")
        if fate == "refused" and not (found["problem"] or {}).get("detail"):
            wrong.append(f"{case.name}: refused without a word")
        assert SECRET not in str(problems)
    assert not wrong, "\n".join(wrong)
    _assert_sound(server, client, memory)


def test_a_pack_of_the_whole_hostile_set_has_a_word_on_each_file(server: Serve, client: httpx.Client) -> None:
    memory = Memory(server)
    cases = [*FILES, *(Case(f"cut {n}", lambda data=data: data, "either") for n, data in enumerate(cut_everywhere()))]
    members = {f"{number:03d} {case.name}": case.make() for number, case in enumerate(cases)}
    found = upload(client, zipped({"good": ct(), **members}, method=zipfile.ZIP_STORED), "hostile.zip")
    assert found["state"] == "stored"
    assert len(found["files"]) == len(cases) + 1
    by_path = {file["path"]: file for file in found["files"]}
    assert by_path["good"]["state"] == "stored"
    for name, case in zip(members, cases, strict=True):
        file = by_path[name]
        assert case.fate in ("either", file["state"]), (case.name, file)
        assert file["state"] != "refused" or file["problem"]["detail"], case.name
        assert SECRET not in str(file["problem"])
        assert not case.name.startswith("cut") or file["state"] == "refused", case.name
    _assert_sound(server, client, memory)
