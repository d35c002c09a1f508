"""kill -9 of server, worker or PostgreSQL while instances are stored, uploaded and ingested.

Afterwards nothing that was acknowledged is missing, nothing half-done is visible, and each job ended once. A point is a
moment after the flow began; the seed is in the test's name, so that a failure can be run again.
"""

import asyncio
import contextlib
import io
import random
import threading
import time
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from pydicom import dcmread

from annotomy.actor import SYSTEM
from annotomy.db.private_server import PrivateServer
from tests.db.private_data import data_folder
from tests.support.dicom_files import ct_series
from tests.support.serve import Serve, wait_until

FEW = [("server", 1), ("worker-1", 2), ("postmaster", 3)]
MANY = [(target, seed) for target in ("server", "worker-1", "postmaster") for seed in range(100, 120)]
TAKEN_OVER_S = 120
"""A job whose worker was killed begins again after its heartbeat timed out."""
RUNS_AGAIN_S = 90
"""What is killed again and again is started ever more slowly, at last after 30 s."""
LATEST_POINT_S = 1.5
TUS = {"Tus-Resumable": "1.0.0"}
CHUNK_BYTES = 2 << 10


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with data_folder() as data:
        started = Serve(data, ANNOTOMY_WORKERS_INLINE="1").start()
        yield started
        started.stop()


def points(few: list[tuple[str, int]]) -> pytest.MarkDecorator:
    chosen = [*few, *(pytest.param(*point, marks=pytest.mark.long) for point in MANY)]
    return pytest.mark.parametrize(("target", "seed"), chosen)


@points(FEW[:1] + FEW[2:])
def test_a_kill_while_instances_are_stored(serve: Serve, target: str, seed: int) -> None:
    files = ct_series(60)
    acknowledged: list[bytes] = []
    with serve.client() as client, killing(serve, target, seed) as killer:
        for data in files:
            try:
                if store(client, serve, data):
                    acknowledged.append(data)
            except httpx.TransportError:
                killer.join()
    assert acknowledged
    check_archive(serve, files, acknowledged)


@points(FEW)
def test_a_kill_while_an_archive_is_uploaded_and_ingested(serve: Serve, target: str, seed: int) -> None:
    pytest.importorskip("annotomy.uploads.routes", reason="uploads have not landed")
    files = ct_series(40)
    package = zipped(files)
    with serve.client() as client:
        created = client.post(
            f"{serve.address}/api/v1/uploads",
            headers=TUS | {"Upload-Length": str(len(package)), "Upload-Metadata": "filename c2NhbnMuemlw"},
        ).raise_for_status()
        path, offset = created.headers["location"], 0
        with killing(serve, target, seed):
            while offset < len(package):
                before = offset
                with contextlib.suppress(httpx.TransportError):
                    sent = client.patch(
                        f"{serve.address}{path}",
                        content=package[offset : offset + CHUNK_BYTES],
                        headers=TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"},
                    )
                    if sent.status_code == 204:
                        offset = int(sent.headers["upload-offset"])
                        continue
                offset = asked_offset(client, serve, path)
                assert offset >= before, "acknowledged bytes are gone"
        upload: dict[str, Any] = {}

        def ended() -> bool:
            with contextlib.suppress(httpx.TransportError):
                answer = client.get(f"{serve.address}{path}")
                if answer.status_code == 200:
                    upload.update(answer.json())
            return upload.get("state") in ("stored", "failed")

        wait_until(ended, "the upload is ingested", TAKEN_OVER_S)
    assert upload["state"] == "stored", upload["problem"]
    assert {file["state"] for file in upload["files"]} <= {"stored", "already"}
    assert len(upload["files"]) == len(files)
    check_archive(serve, files, files)
    assert counted(serve.data, "events where type = 'upload.stored' and object_id = $1", upload["id"]) == 1
    assert counted(serve.data, "jobs where id::text = $1 and state = 'succeeded'", upload["job_id"]) == 1


@contextlib.contextmanager
def killing(serve: Serve, target: str, seed: int) -> Generator[threading.Thread]:
    """Kills the target at the seed's moment, whatever the block is doing then, and leaves when it runs again."""
    point_s = random.Random(seed).uniform(0, LATEST_POINT_S)  # noqa: S311
    failures: list[BaseException] = []

    def kill() -> None:
        time.sleep(point_s)
        try:
            kill_and_restart(serve, target)
        except BaseException as failure:
            failures.append(failure)
            raise

    killer = threading.Thread(target=kill)
    killer.start()
    yield killer
    killer.join()
    assert not failures, failures


def kill_and_restart(serve: Serve, target: str) -> None:
    killed = serve.pid(target)
    serve.kill(target)
    if target == "server":
        serve.start()
    else:
        pid_file = serve.data / "run" / f"{target}.pid"
        wait_until(lambda: pid_file.exists() and serve.pid(target) != killed, f"{target} runs again", RUNS_AGAIN_S)


def store(client: httpx.Client, serve: Serve, data: bytes) -> bool:
    """Whether it was acknowledged."""
    answer = client.post(
        f"{serve.address}/dicom-web/studies",
        content=b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n",
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    return answer.status_code == 200


def asked_offset(client: httpx.Client, serve: Serve, path: str) -> int:
    """Where the upload goes on, once the server answers again."""
    offsets: list[int] = []

    def answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            answer = client.head(f"{serve.address}{path}", headers=TUS)
            if answer.status_code == 200:
                offsets.append(int(answer.headers["upload-offset"]))
        return bool(offsets)

    wait_until(answered, "the upload tells its offset")
    return offsets[0]


def check_archive(serve: Serve, files: list[bytes], acknowledged: list[bytes]) -> None:
    """Every acknowledged instance comes back byte for byte, and whatever is listed is whole."""
    by_uid = {str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID): data for data in files}
    first = dcmread(io.BytesIO(files[0]), stop_before_pixels=True)
    series = f"/dicom-web/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}"
    with serve.client() as client:
        listed = client.get(f"{series}/instances?limit=1000").raise_for_status().json()
        uids = {row["00080018"]["Value"][0] for row in listed}
        counted_series = client.get(
            f"/dicom-web/studies/{first.StudyInstanceUID}/series?includefield=00201209"
        ).raise_for_status()
        assert counted_series.json()[0]["00201209"]["Value"] == [len(uids)], "the count differs from what is there"
        missing = [data for data in acknowledged if uid_of(by_uid, data) not in uids]
        assert not missing, f"{len(missing)} acknowledged instances are missing"
        for uid in uids:
            whole = client.get(
                f"{series}/instances/{uid}", headers={"Accept": 'multipart/related; type="application/dicom"'}
            )
            assert whole.status_code == 200, f"a listed instance does not come back: {whole.status_code}"
            assert by_uid[uid] in whole.content


def uid_of(by_uid: dict[str, bytes], data: bytes) -> str:
    return next(uid for uid, known in by_uid.items() if known is data)


def counted(data: Path, what: str, key: str) -> int:
    return query(data, f"select count(*) as count from {what}", key)[0]["count"]


def query(data: Path, sql: str, *values: object) -> list[asyncpg.Record]:
    """Rows as the system sees them: what no access rule hides."""

    async def asked() -> list[asyncpg.Record]:
        url = PrivateServer(data).running_url()
        assert url is not None
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(f"set app.actor = '{SYSTEM.user_id}'")
            return await connection.fetch(sql, *values)
        finally:
            await connection.close()

    return asyncio.run(asked())


def zipped(files: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, data in enumerate(files):
            archive.writestr(f"slice-{number:03}.dcm", data)
    return buffer.getvalue()
