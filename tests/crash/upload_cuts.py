"""Uploads that are cut at random, again and again, and what must hold afterwards.

    python -m tests.crash.upload_cuts --cuts 300 --gib 4 [--s3]

A cut is one of: the client dies in the middle of a chunk, its line is reset, the server is killed, PostgreSQL is killed, the
worker is killed, the disk is full, or (over an object store) a line to the store breaks, stalls or answers 503. Files are
DICOM instances of any size with few bytes that are not zero, so that 4 GiB cost no memory here. The seed is in the summary.
"""

import argparse
import asyncio
import contextlib
import io
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pydicom
from blake3 import blake3
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from annotomy.app import open_services
from annotomy.db.private_server import PrivateServer
from annotomy.settings import Settings
from annotomy.transfer.connection import TransferError
from annotomy.transfer.upload import Sender
from annotomy.uploads.staged import sweep_staged
from annotomy.uploads.sweep import sweep_uploads
from tests.crash.fault_proxy import FaultProxy
from tests.crash.test_kill import asked_offset, kill_and_restart, query
from tests.db.private_data import data_folder
from tests.support.s3 import KEY, SECRET, s3_server
from tests.support.serve import Serve, wait_until

TUS = {"Tus-Resumable": "1.0.0"}
ENDS_S = 240
"""A killed worker's job begins again after its heartbeat timed out."""
LONGEST_S = 900
"""One file, whatever happens to it."""
LOCAL_CUTS = ("client", "reset", "client", "reset", "disk", "server", "worker", "postgres")
"""What a machine does is cheap and what a process does takes seconds: both come often enough."""


@dataclass
class Summary:
    seed: int
    cuts: Counter[str] = field(default_factory=Counter[str])
    files: int = 0
    sent_bytes: int = 0
    left_before_sweep: int = 0
    failures: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.cuts.items()))
        return (
            f"{self.cuts.total()} cuts ({kinds}) over {self.files} files, {self.sent_bytes / 1e6:.0f} MB; seed {self.seed};"
            f" {self.left_before_sweep} leftovers before the sweep, none after; {len(self.failures)} violations"
        )


@dataclass(frozen=True)
class Made:
    path: Path
    sop_instance_uid: str
    digest: str


def run(*, cuts: int, most_bytes: int, seed: int, s3: bool = False) -> Summary:
    """Raises AssertionError when anything that must hold does not."""
    summary = Summary(seed)
    chance = random.Random(seed)  # noqa: S311
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="annotomy-cuts-")))
        scratch.chmod(0o711)  # PostgreSQL's own user passes through
        data = stack.enter_context(_data(scratch, small=not s3))
        settings = {"ANNOTOMY_WORKERS_INLINE": "1", "ANNOTOMY_HTTP_PROCESSES": "1"}
        proxy = None
        if s3:
            (scratch / "s3").mkdir()
            url = stack.enter_context(s3_server(scratch / "s3"))
            endpoint = url.partition("endpoint=")[2].partition("&")[0]
            proxy = stack.enter_context(FaultProxy(endpoint, chance))
            settings |= {
                "ANNOTOMY_BLOBS_URL": url.replace(endpoint, proxy.address),
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
            }
        serve = Serve(data, **settings).start()
        stack.callback(serve.stop)
        made: list[Made] = []
        uploads: list[str] = []
        with serve.client() as client:
            project = client.post("/api/v1/projects", json={"name": "cuts"}).raise_for_status().json()["id"]
            while summary.cuts.total() < cuts:
                file = _make(scratch / f"{len(made)}.dcm", _size(chance, most_bytes), chance)
                send = _send_direct if s3 or chance.random() < 0.3 else _send_tus
                uploads.append(send(serve, client, project, file, chance, summary, proxy))
                made.append(file)
                summary.files += 1
                summary.sent_bytes += file.path.stat().st_size
                os.truncate(file.path, 0)  # its digest is what is compared from here on
            _check_stored(serve, client, made, uploads, summary)
        asyncio.run(_check_left(serve, settings, summary))
    assert not summary.failures, "\n".join([str(summary), *summary.failures])
    return summary


def _send_tus(
    serve: Serve, client: httpx.Client, project: str, made: Made, chance: random.Random, summary: Summary, _: Any
) -> str:
    """Chunk by chunk, about every second one cut."""
    del project
    length = made.path.stat().st_size
    created = _until(
        lambda: client.post(f"{serve.address}/api/v1/uploads", headers=TUS | {"Upload-Length": str(length)})
    )
    address, offset = created.headers["location"], 0
    chunk = max(4096, min(16 << 20, length // chance.randint(2, 6)))
    deadline = time.monotonic() + LONGEST_S
    with made.path.open("rb") as file:
        while offset < length:
            assert time.monotonic() < deadline, f"{made.path.name} is not through"
            size = min(chunk, length - offset)
            kind = chance.choice(LOCAL_CUTS) if chance.random() < 0.5 else ""
            before = offset
            with _cutting(serve, kind, chance, summary):
                acknowledged = _patch(serve, client, address, offset, file, size, kind, chance)
            offset = asked_offset(client, serve, address)
            if offset < max(before, acknowledged):
                summary.failures.append(f"{kind}: {acknowledged} bytes were acknowledged, {offset} are there")
    return address


def _send_direct(
    serve: Serve, client: httpx.Client, project: str, made: Made, chance: random.Random, summary: Summary, proxy: Any
) -> str:
    """The command's own client; when it gives up or dies it begins anew, and finds what it had sent."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        assert time.monotonic() < deadline, f"{made.path.name} is not through"
        kind = chance.choice(
            ("store", "store", "client", "server", "postgres") if proxy else ("client", "server", "postgres")
        )
        if proxy is not None:
            proxy.faults = kind == "store"
        here = httpx.Client(base_url=serve.address, headers=client.headers, timeout=60, trust_env=False)
        try:
            with here, _cutting(serve, kind, chance, summary):
                sender = Sender(here, project, _dying(chance, kind), part_bytes=5 << 20)
                address = sender.send(made.path, filename=made.path.name)
        except (_Dead, TransferError, httpx.TransportError):
            continue
        finally:
            if proxy is not None:
                summary.cuts["store"] += proxy.taken()
                proxy.faults = False
        return address


class _Dead(Exception):
    """The client is no more."""


def _dying(chance: random.Random, kind: str) -> Any:
    left = chance.randint(1, 4) if kind == "client" else 1 << 30

    def sent(_: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Dead

    return sent


@contextlib.contextmanager
def _cutting(serve: Serve, kind: str, chance: random.Random, summary: Summary) -> Generator[None]:
    """Kills, at a moment of the block, and leaves when what was killed runs again."""
    target = {"server": "server", "postgres": "postmaster", "worker": "worker-1"}.get(kind)
    if kind and kind != "store":
        summary.cuts[kind] += 1
    if kind == "disk":
        with _full(serve.data):
            yield
        return
    if target is None:
        yield
        return
    pause_s = chance.uniform(0, 0.3)
    failures: list[BaseException] = []

    def kill() -> None:
        time.sleep(pause_s)
        try:
            kill_and_restart(serve, target)
        except BaseException as failure:
            failures.append(failure)
            raise

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()
    assert not failures, failures


def _patch(
    serve: Serve,
    client: httpx.Client,
    address: str,
    offset: int,
    file: Any,
    size: int,
    kind: str,
    chance: random.Random,
) -> int:
    """The offset that was acknowledged; 0 when nothing was."""
    host, port = serve.address.removeprefix("http://").split(":")
    head = (
        f"PATCH {address} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {client.headers['authorization']}\r\n"
        f"Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\nContent-Type: application/offset+octet-stream\r\n"
        f"Content-Length: {size}\r\nConnection: close\r\n\r\n"
    )
    stop = chance.randint(0, size) if kind in ("client", "reset") else size
    sent = 0
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(head.encode())
        while sent < stop:
            file.seek(offset + sent)
            piece = file.read(min(1 << 20, stop - sent))
            line.sendall(piece)
            sent += len(piece)
        if kind == "reset":
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return 0
        if kind == "client":
            return 0
        answer = b""
        while piece := line.recv(1 << 16):
            answer += piece
        status = int(answer.split(b" ", 2)[1]) if answer else 0
        if kind == "disk":
            assert status == 507, answer[:300]
        return offset + size if status == 204 else 0
    return 0


@contextlib.contextmanager
def _full(data: Path) -> Generator[None]:
    """Nothing but a few blocks is free, above what the server leaves to its database."""
    ballast = data / "ballast"
    free = shutil.disk_usage(data).free
    keep = (1 << 30) - (8 << 20)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - keep))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def _data(scratch: Path, *, small: bool) -> Generator[Path]:
    """A data folder, on a disk of its own that can be full where that may be made."""
    if not small:
        with data_folder() as data:
            yield data
        return
    image, place = scratch / "disk", scratch / "mounted"
    place.mkdir()
    image.touch()
    os.truncate(image, 24 << 30)
    try:
        subprocess.run(
            ["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", str(image)], check=True, capture_output=True
        )
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        with data_folder() as data:
            yield data
        return
    try:
        place.chmod(0o755)
        yield place / "data"
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _check_stored(serve: Serve, client: httpx.Client, made: list[Made], uploads: list[str], summary: Summary) -> None:
    for file, address in zip(made, uploads, strict=True):
        shown: dict[str, Any] = {}

        def ended(address: str = address, shown: dict[str, Any] = shown) -> bool:
            with contextlib.suppress(httpx.TransportError):
                shown.update(client.get(f"{serve.address}{address}").json())
            return shown.get("state") in ("stored", "failed")

        wait_until(ended, f"{address} is taken in", ENDS_S)
        if shown["state"] != "stored":
            summary.failures.append(f"{file.path.name} failed: {shown['problem']}")
            continue
        rows = query(
            serve.data, "select blob_address from instances where sop_instance_uid = $1", file.sop_instance_uid
        )
        if [row["blob_address"] for row in rows] != [file.digest]:
            summary.failures.append(f"{file.path.name} is stored {len(rows)} times or with other bytes")
        told = query(
            serve.data,
            "select 1 from events where type = 'upload.stored' and object_id = $1",
            address.rpartition("/")[2],
        )
        if len(told) != 1:
            summary.failures.append(f"{file.path.name} was told {len(told)} times to be stored")
        held = serve.data / "blobs" / file.digest[:2] / file.digest[2:4] / file.digest
        if held.exists() and blake3().update_mmap(held).hexdigest() != file.digest:
            summary.failures.append(f"{file.path.name}: the blob is not what its name says")
    blobs = query(
        serve.data, "select count(*) as count from blobs where address = any($1)", [one.digest for one in made]
    )
    if blobs[0]["count"] != len(made):
        summary.failures.append(f"{blobs[0]['count']} blobs of {len(made)} files")


async def _check_left(serve: Serve, settings: dict[str, str], summary: Summary) -> None:
    """After the sweep, which believes that everything is old, nothing of any upload lies anywhere."""
    url = PrivateServer(serve.data).running_url()
    assert url is not None
    known = Settings.from_environment({"ANNOTOMY_DATA": str(serve.data), **settings})
    async with open_services(known, url) as services:
        left = _temporary(serve.data)
        summary.left_before_sweep = len(left)
        for path in left:
            os.utime(path, (0, 0))
        await sweep_uploads(services)
        from datetime import timedelta

        await sweep_staged(services, young=timedelta(seconds=-5))
        remaining = [str(path) for path in _temporary(serve.data)]
        if services.staging is not None:
            remaining += [one.key for one in await services.staging.unfinished()]
            remaining += [name for name, _ in await services.staging.finished()]
        summary.failures += [f"left behind: {one}" for one in remaining]


def _temporary(data: Path) -> list[Path]:
    return [
        path for folder in ("uploads", "blobs/tmp") if (data / folder).is_dir() for path in (data / folder).iterdir()
    ]


def _size(chance: random.Random, most: int) -> int:
    """Small files are as frequent as large ones."""
    return int(2 ** chance.uniform(14, most.bit_length() - 1))


def _make(path: Path, pixel_bytes: int, chance: random.Random) -> Made:
    """A CT instance whose pixel data is a hole with noise here and there."""
    pixel_bytes -= pixel_bytes % 2
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = dataset.PatientName = "CUT"
    dataset.StudyDate, dataset.Modality, dataset.Rows, dataset.Columns = "20260101", "CT", 1, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    head = buffer.getvalue() + b"\xe0\x7f\x10\x00OW\0\0" + pixel_bytes.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + pixel_bytes)
        for _ in range(8):
            noise = chance.randbytes(4096)
            file.seek(len(head) + chance.randint(0, max(0, pixel_bytes - len(noise))))
            file.write(noise[: len(head) + pixel_bytes - file.tell()])
    return Made(path, str(dataset.SOPInstanceUID), blake3().update_mmap(path).hexdigest())


def _until(ask: Any) -> httpx.Response:
    """Asked again while the server is being killed."""
    found: list[httpx.Response] = []

    def answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            answer = ask()
            if answer.is_success:
                found.append(answer)
        return bool(found)

    wait_until(answered, "the server answers", 120)
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--gib", type=float, default=4.0, help="the largest file")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--s3", action="store_true", help="over an object store behind a proxy that fails")
    chosen = parser.parse_args()
    print(run(cuts=chosen.cuts, most_bytes=int(chosen.gib * 2**30), seed=chosen.seed, s3=chosen.s3))


if __name__ == "__main__":
    sys.exit(main())
