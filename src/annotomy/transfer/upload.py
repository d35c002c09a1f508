"""One resumable upload (tus 1.0) and the word of the server on what it held."""

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from annotomy.transfer.connection import TransferError, body_of, problem_text

CHUNK_BYTES = 16 << 20
"""What is sent again at most when a connection breaks; each chunk costs the server one sync."""

TRIES = 6
LONGEST_PAUSE_S = 20.0
"""Tries again for about half a minute: longer than a server takes to start again."""

POLL_S = 0.1
LONGEST_POLL_S = 1.0

VERSION = {"Tus-Resumable": "1.0.0"}


def send(client: httpx.Client, path: Path, *, filename: str, project_id: str) -> str:
    """Sends a file and returns its upload's address. Raises TransferError."""
    with path.open("rb") as file:
        metadata = {
            "filename": filename[-255:],
            "relative_path": filename[-1024:],
            "project_id": project_id,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
        size = file.tell()
        pairs = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
        headers = VERSION | {"Upload-Length": str(size), "Upload-Metadata": pairs}
        made = client.post("/api/v1/uploads", headers=headers)
        if not made.is_success:
            raise TransferError(problem_text(made))
        address = made.headers["location"]
        offset, tries = 0, 0
        while offset < size:
            file.seek(offset)
            reached = _append(client, address, offset, file.read(CHUNK_BYTES))
            tries = 0 if reached > offset else tries + 1
            if tries >= TRIES:
                raise TransferError("the server cannot be reached any more")
            offset = reached
            if tries:
                time.sleep(min(2.0**tries / 2, LONGEST_PAUSE_S))
    return address


def _append(client: httpx.Client, address: str, offset: int, chunk: bytes) -> int:
    """The server's offset after one try; after a broken connection or a failing server it is asked for."""
    headers = VERSION | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    try:
        answer = client.patch(address, headers=headers, content=chunk)
        if answer.is_success:
            return int(answer.headers["upload-offset"])
        # 409 and 423: another connection of ours, which we believed broken, wrote or still writes.
        if answer.status_code not in (409, 423) and answer.status_code < 500:
            raise TransferError(problem_text(answer))
        found = client.head(address, headers=VERSION)
        return int(found.headers["upload-offset"]) if found.is_success else offset
    except httpx.TransportError:
        return offset


def wait_until_taken_in(client: httpx.Client, address: str, *, waiting: Callable[[float], None]) -> Any:
    """The upload's JSON once its ingest job is over. `waiting` is told the seconds so far. Raises TransferError."""
    began, pause_s, failures = time.monotonic(), POLL_S, 0
    while True:
        try:
            upload = body_of(client.get(address))
            failures = 0
        except httpx.TransportError as error:
            failures += 1
            if failures > TRIES:
                raise TransferError("the server cannot be reached any more") from error
            upload = {"state": "unknown"}
        if upload["state"] in ("stored", "failed"):
            return upload
        waiting(time.monotonic() - began)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_POLL_S)
