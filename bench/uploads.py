"""Uploads: speed, processor time, memory, waiting and resuming; beside @tus/server, tuspyserver, nginx PUT and Orthanc.

Each row has a bar, and the result says for each whether it was met. `--gib 0.25` measures with smaller files.
"""

import asyncio
import base64
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import google_crc32c
import psutil

from annotomy.db.private_server import PrivateServer
from bench import corpus
from bench.machine import facts
from bench.measure import RESULTS, Request, cpu_seconds, send_all
from bench.servers import WORK, Server, nginx_put, orthanc, ours, tus_node, tuspyserver
from bench.stow import MULTIPART_JSON, stored
from bench.tus_client import Tus

CHUNK_BYTES = 16 << 20
FILE_GIB = 2.0
"""Of one upload; `--gib` says otherwise, and everything else is scaled with it."""
SMALL_FILES, SMALL_SIZE = 10_000, 158
"""CT slices of 158 x 158: 50 KB each."""
TEN, TEN_GIB = 10, 4
HUGE_BYTES = 100 << 30
STOW_INSTANCES = 25
NOTES = (
    "ours checks a CRC32C of each chunk, syncs it to disk and commits its offset before it answers; the peers do neither. "
    "Clock and processor time end with the last acknowledgement. The client sends from a file without copying it. "
    "Ten uploads of 4 GiB run at the same time while memory is sampled, and are given up after their share of bytes. "
    "The upload of 100 GB is a sparse part file, so that only its last bytes travel. Small files: `annotomy import` from "
    "its start to its end; Orthanc takes STOW of 25 instances a request over 4 connections"
)


def run(runs: int, alone: bool, gib: float = FILE_GIB) -> None:
    rows: list[dict[str, Any]] = []

    def row(measure: str, value: float, unit: str, *, bar: str = "", met: bool | None = None, **more: Any) -> None:
        rows.append({"measure": measure, "value": round(value, 3), "unit": unit, "bar": bar, "met": met, **more})
        said = {True: "met", False: "MISSED", None: ""}[met]
        print(f"{measure:60}{value:12.2f} {unit:8}{bar:>10} {said}", flush=True)

    WORK.mkdir(exist_ok=True, parents=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        noise = Path(folder) / "noise"
        _write_noise(noise, int(gib * 2**30))
        versions = _speed(row, noise, runs, alone)
        with ours(ANNOTOMY_UPLOAD_LIMIT_BYTES=str(1 << 40)) as server:
            versions["annotomy"] = server.version
            _worst_get(row, server, noise)
            _memory(row, server, noise, gib)
            _resume(row, server)
        noise.unlink()
        _small_files(row, Path(folder), max(200, int(SMALL_FILES * min(1.0, gib / FILE_GIB))), alone, versions)
    RESULTS.mkdir(exist_ok=True)
    content = {
        "benchmark": "uploads", "notes": NOTES, "machine": facts(), "file_gib": gib, "runs": runs, "servers": versions, "rows": rows,
    }  # fmt: skip
    path = RESULTS / "uploads.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    bars = [one for one in rows if one["met"] is not None]
    print(f"\n{sum(one['met'] for one in bars)} of {len(bars)} bars met; written to {path}")


Row = Callable[..., None]
PEERS: list[tuple[str, Callable[..., Any], str, dict[int, float]]] = [
    ("@tus/server", tus_node, "/files", {1: 3.0, 4: 2.0}),
    ("tuspyserver", tuspyserver, "/files/", {1: 1.5, 4: 1.5}),
    ("nginx PUT", nginx_put, "/dav/", {1: 0.6, 4: 0.8}),
]
"""With the ratio that ours is to reach over 1 and 4 connections."""


def _speed(row: Row, noise: Path, runs: int, alone: bool) -> dict[str, str]:
    figures: dict[tuple[str, int], list[tuple[float, float]]] = {}
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        servers = {"annotomy": stack.enter_context(ours()).at("/api/v1/uploads")}
        for name, start, path, _ in [] if alone else PEERS:
            servers[name] = stack.enter_context(start()).at(path)
        versions |= {name: server.version for name, server in servers.items()}
        checksums = _checksums(noise)
        for run_number in range(runs + 1):
            for connections in (1, 4):
                for name, server in servers.items():
                    if run_number == 0 and connections == 4:
                        continue  # one upload warms a server up
                    measured = _uploads(name, server, noise, connections, checksums)
                    if run_number:
                        figures.setdefault((name, connections), []).append(measured)
    speed = {key: statistics.median(one[0] for one in found) for key, found in figures.items()}
    spent = {key: statistics.median(one[1] for one in found) for key, found in figures.items()}
    for connections in (1, 4):
        label = f"{connections} uploads at once"
        row(f"{label}, annotomy", speed["annotomy", connections], "MB/s")
        for name, _, _, bars in [] if alone else PEERS:
            ratio = speed["annotomy", connections] / speed[name, connections]
            bar = bars[connections]
            row(
                f"{label}, beside {name}", ratio, "x", bar=f">= {bar}", met=ratio >= bar, peer=round(speed[name, connections], 1)
            )  # fmt: skip
        row(f"{label}, processor, annotomy", spent["annotomy", connections], "s/GiB")
        if not alone:
            ratio = spent["annotomy", connections] / spent["@tus/server", connections]
            row(
                f"{label}, processor beside @tus/server", ratio, "x", bar="<= 0.3", met=ratio <= 0.3,
                peer=round(spent["@tus/server", connections], 3),
            )  # fmt: skip
    return versions


def _uploads(name: str, server: Server, noise: Path, connections: int, checksums: list[str]) -> tuple[float, float]:
    """MB/s and processor seconds for each GiB; the files are gone afterwards."""
    failures: list[BaseException] = []
    done: list[tuple[Tus, str]] = []

    def client() -> None:
        try:
            tus = Tus(server, noise)
            done.append((tus, tus.upload(name, CHUNK_BYTES, checksums if name == "annotomy" else None)))
        except BaseException as failure:
            failures.append(failure)
            raise

    before, started = cpu_seconds(server), time.perf_counter()
    clients = [threading.Thread(target=client) for _ in range(connections)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    seconds, cpu = time.perf_counter() - started, cpu_seconds(server) - before
    if failures:
        raise AssertionError(f"{name}: {failures[0]!r}")
    for tus, location in done:
        tus.forget(name, location)
        tus.close()
    size = noise.stat().st_size * connections
    return size / 1e6 / seconds, cpu / (size / 2**30)


def _worst_get(row: Row, server: Server, noise: Path) -> None:
    """A small answer with a database read, asked for again and again while one upload runs."""
    over, worst = threading.Event(), [0.0]

    def ask() -> None:
        while not over.is_set():
            check = Request("GET", "/api/v1/projects", lambda status, body: None if status == 200 else f"{status}")
            worst[0] = max(worst[0], *send_all(server, [check] * 20).latencies_ms)

    asking = threading.Thread(target=ask)
    asking.start()
    _uploads("annotomy", server.at("/api/v1/uploads"), noise, 1, _checksums(noise))
    over.set()
    asking.join()
    row("worst small GET beside an upload", worst[0], "ms", bar="< 100", met=worst[0] < 100)


def _memory(row: Row, server: Server, noise: Path, gib: float) -> None:
    """What the server's processes grow by while ten uploads run: the unique memory, so that nothing counts twice."""
    share = min(TEN_GIB << 30, int(gib * 2**30) // 2)
    idle = _unique_memory(server)
    peak, over = [idle], threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            peak[0] = max(peak[0], _unique_memory(server))

    watching = threading.Thread(target=watch)
    watching.start()
    seen: list[int] = []

    def client() -> None:
        tus = Tus(server.at("/api/v1/uploads"), noise)
        location = tus.create("annotomy", TEN_GIB << 30)
        for offset in range(0, share, CHUNK_BYTES):
            tus.append(location, offset, min(CHUNK_BYTES, share - offset), source=0)
        seen.append(share)
        tus.forget("annotomy", location)
        tus.close()

    clients = [threading.Thread(target=client) for _ in range(TEN)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    over.set()
    watching.join()
    if len(seen) != TEN:
        raise AssertionError("an upload failed while memory was measured")
    grown = (peak[0] - idle) / 1e6
    row(f"memory above idle, {TEN} uploads of {TEN_GIB} GiB", grown, "MB", bar="<= 100", met=grown <= 100, idle_mb=round(idle / 1e6), sent_gib_each=round(share / 2**30, 3))  # fmt: skip


def _resume(row: Row, server: Server) -> None:
    """An upload of 100 GB stands at its end but for one chunk: how long until that is taken, from a new connection."""
    with tempfile.NamedTemporaryFile(dir=WORK) as few:
        few.write(secrets.token_bytes(1 << 20))
        few.flush()
        tus = Tus(server.at("/api/v1/uploads"), Path(few.name))
        location = tus.create("annotomy", None)
        tus.append(location, 0, 1 << 20)
        stand = HUGE_BYTES - CHUNK_BYTES
        _stand_at(server, location.rpartition("/")[2], stand)
        tus.close()
        started = time.perf_counter()
        again = Tus(server.at("/api/v1/uploads"), Path(few.name))
        offset = again.offset(location)
        again.append(location, offset, 1 << 20, source=0)
        seconds = time.perf_counter() - started
        if offset != stand:
            raise AssertionError(f"the upload stands at {offset}, not {stand}")
        again.forget("annotomy", location)
        again.close()
    row("resume of a 100 GB upload, to the next MiB acknowledged", seconds, "s", bar="< 2", met=seconds < 2)


def _stand_at(server: Server, upload_id: str, offset: int) -> None:
    """As if so much had been sent: a hole in the part file, and the row's offset."""
    assert server.data is not None
    os.truncate(server.data / "uploads" / f"{upload_id}.part", offset)
    url = PrivateServer(server.data).running_url()
    assert url is not None

    async def write() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("update uploads set received = $2 where id = $1::uuid", upload_id, offset)
        finally:
            await connection.close()

    asyncio.run(write())


def _small_files(row: Row, folder: Path, count: int, alone: bool, versions: dict[str, str]) -> None:
    instances = [
        one
        for number in range(-(-count // 250))
        for one in corpus.study(7_000_000 + number, instances=min(250, count - number * 250), size=SMALL_SIZE)
    ]
    source = folder / "small"
    for number, one in enumerate(instances):
        target = source / f"{number // 250:03}" / f"{number:05}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(one.data)
    with ours() as server:
        key = json.loads(_post(server, "/api/v1/api-keys", {"name": "bench"}))["key"]
        command = [
            sys.executable, "-m", "annotomy.cli", "import", str(source), "--project", server.project_id,
            "--url", f"http://{server.host}:{server.port}", "--api-key", key,
        ]  # fmt: skip
        warm = folder / "warm.dcm"  # the worker of a server that has just started is still starting
        warm.write_bytes(corpus.study(6_999_999, instances=1, size=SMALL_SIZE)[0].data)
        subprocess.run([str(warm) if one == str(source) else one for one in command], capture_output=True, check=True)
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        mine = len(instances) / (time.perf_counter() - started)
        if done.returncode or done.stdout.count("stored\t") != len(instances):
            raise AssertionError(f"import: {done.stderr[-400:]}")
    row(f"{len(instances)} files of 50 KB, annotomy import", mine, "files/s")
    if alone:
        return
    requests = [
        Request("POST", "/studies", stored(len(batch)), corpus.multipart(batch), MULTIPART_JSON)
        for at in range(0, len(instances), STOW_INSTANCES)
        if (batch := instances[at : at + STOW_INSTANCES])
    ]
    with orthanc() as server:
        versions["orthanc"] = server.version
        theirs = len(instances) / send_all(server, requests, connections=4).seconds
    row(f"{len(instances)} files of 50 KB, beside STOW to Orthanc", mine / theirs, "x", bar=">= 5", met=mine / theirs >= 5, peer=round(theirs, 1))  # fmt: skip


def _post(server: Server, path: str, body: Any) -> bytes:
    answers: list[bytes] = []

    def check(status: int, answer: bytes) -> str | None:
        answers.append(answer)
        return None if status in (200, 201) else f"{status} {answer[:200]!r}"

    send_all(server, [Request("POST", path, check, json.dumps(body).encode(), {"Content-Type": "application/json"})])
    return answers[0]


def _unique_memory(server: Server) -> int:
    total = 0
    for root in server.processes():
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    return total


def _write_noise(path: Path, size: int) -> None:
    """No server can be quick by not storing it."""
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(os.urandom(min(left, 8 << 20)))


def _checksums(noise: Path) -> list[str]:
    found: list[str] = []
    with noise.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            found.append(f"crc32c {base64.b64encode(google_crc32c.Checksum(piece).digest()).decode()}")
    return found
