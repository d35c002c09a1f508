"""A real S3 server (SeaweedFS) on loopback for a test run; `./run test --referees` installs it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

KEY, SECRET, BUCKET = "annotomy", "only for tests", "annotomy-test"
READY_TIMEOUT_S = 90


@contextmanager
def s3_server(folder: Path) -> Generator[str]:
    """Its blob URL; the credentials are in the environment meanwhile. Skips without the program."""
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("no SeaweedFS (./run test --referees installs it)")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: _free_port() for name in ("master", "volume", "filer", "s3")}
    command = [
        weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}",
        "-volume.max=8", "-master.volumeSizeLimitMB=256", *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={_free_port()}" for name in ports),
    ]  # fmt: skip
    before = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{ports['s3']}"
            _wait(address, process, folder / "log")
            os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET)
            _make_bucket(address)
            yield f"s3://{BUCKET}?endpoint={address}&region=us-east-1"
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            process.kill()  # nothing of it is kept, and an orderly end takes it half a minute
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if httpx.get(f"{address}/status", timeout=2).status_code < 500:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def _make_bucket(address: str) -> None:
    import boto3  # pyright: ignore[reportMissingImports] - of the referees

    client = boto3.client(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        "s3", endpoint_url=address, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket=BUCKET)
