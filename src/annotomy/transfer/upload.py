"""One file to the server, in parts that are sent side by side (direct uploads: docs/how-to/upload.md).

The same whether parts go to the server or to its object store. Nothing is remembered on this side: a client that starts
again finds its own open upload by the hash of the file, and sends the parts that are missing.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from blake3 import blake3

from annotomy.transfer.connection import TransferError, body_of, problem_text

CONNECTIONS = 4
"""Parts of one file on their way at the same time."""
ADDRESSES_AT_ONCE = 64
"""Signed together; each holds for an hour."""

TRIES = 6
LONGEST_PAUSE_S = 20.0
"""Tries again for about half a minute: longer than a server takes to start again."""

POLL_S = 0.05
LONGEST_POLL_S = 1.0

PAGE = 200


@dataclass(slots=True)
class Sender:
    """Sends files into one project. Several threads may use it."""

    client: httpx.Client
    project_id: str
    sent: Callable[[int], None] = lambda count: None
    """Hears of bytes that have arrived."""
    part_bytes: int | None = None
    parts_client: httpx.Client = field(init=False)
    """Without our credential: an object store is not to see it."""
    _open: dict[tuple[str, int, str], str] = field(init=False)

    def __post_init__(self) -> None:
        self.parts_client = httpx.Client(
            base_url=self.client.base_url,
            timeout=self.client.timeout,
            trust_env=False,
            limits=httpx.Limits(max_connections=4 * CONNECTIONS),
        )
        self._open = {_identity(one): one["id"] for one in open_uploads(self.client) if self._is_ours(one)}

    def close(self) -> None:
        self.parts_client.close()

    def send(self, path: Path, *, filename: str, manifest_id: str | None = None, relative_path: str = "") -> str:
        """The address of the upload, complete and on its way in. Raises TransferError."""
        size = path.stat().st_size
        digest = blake3().update_mmap(path).hexdigest() if size else blake3(b"").hexdigest()
        named = (relative_path or filename)[-1024:]
        known = self._open.pop((digest, size, named), None)
        upload = self._listed(known) if known is not None else None
        if upload is None:
            body = {
                "length": size, "blake3": digest, "filename": filename[-255:], "relative_path": named,
                "project_id": self.project_id, "manifest_id": manifest_id, "part_bytes": self.part_bytes,
            }  # fmt: skip
            upload = self._begin(body, (digest, size, named))
        address = f"/api/v1/uploads/{upload['id']}"
        self._send_parts(path, address, upload)
        done = self._asked("POST", f"{address}/complete", {})
        if not done.is_success:
            raise TransferError(problem_text(done))
        return address

    def _begin(self, body: Any, identity: tuple[str, int, str]) -> Any:
        """Once: after an answer that was lost, the upload that it told of is looked for before another one is made."""
        for attempt in range(TRIES):
            try:
                if attempt:
                    time.sleep(min(2.0**attempt / 2, LONGEST_PAUSE_S))
                    for one in open_uploads(self.client):
                        if self._is_ours(one) and _identity(one) == identity and (found := self._listed(one["id"])):
                            return found
                answer = self.client.post("/api/v1/uploads/direct", json=body)
            except httpx.TransportError:
                continue
            if answer.status_code < 500 or answer.status_code == 507:
                return body_of(answer)
        raise TransferError("the server cannot be reached any more")

    def _is_ours(self, upload: Any) -> bool:
        return upload["direct"] is not None and upload["project_id"] == self.project_id and upload["blake3"] is not None

    def _listed(self, upload_id: str) -> Any | None:
        answer = self._asked("GET", f"/api/v1/uploads/{upload_id}/parts")
        return answer.json() if answer.is_success else None

    def _send_parts(self, path: Path, address: str, upload: Any) -> None:
        there = {part["number"]: part["size"] for part in upload["parts"]}
        self.sent(sum(there.values()))
        missing = [number for number in range(1, upload["part_count"] + 1) if number not in there]
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for numbers in _in_groups(missing, ADDRESSES_AT_ONCE):
                    asked = {"parts": [{"number": number} for number in numbers]}
                    signed = body_of(self._asked("POST", f"{address}/parts", asked))["parts"]
                    list(pool.map(partial(self._put, descriptor, address), signed))
        finally:
            os.close(descriptor)

    def _put(self, descriptor: int, address: str, part: Any) -> None:
        """Until the part is there: after a broken line it is sent again, after an expired address to a new one."""
        data = os.pread(descriptor, part["length"], part["offset"])
        said = "no answer"
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(2.0**attempt / 2, LONGEST_PAUSE_S))
            try:
                answer = self.parts_client.put(part["url"], headers=part["headers"], content=data)
            except httpx.TransportError:
                continue
            if answer.is_success:
                self.sent(len(data))
                return
            said = f"HTTP {answer.status_code}"
            if answer.status_code == 403:
                asked = {"parts": [{"number": part["number"]}]}
                [part] = body_of(self._asked("POST", f"{address}/parts", asked))["parts"]
            elif answer.status_code < 500 and answer.status_code not in (408, 423, 429):
                raise TransferError(problem_text(answer))
        raise TransferError(f"a part cannot be sent ({said})")

    def _asked(self, method: str, url: str, body: Any = None) -> httpx.Response:
        """Asked again while the server cannot be reached; each of these may be asked twice."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(2.0**attempt / 2, LONGEST_PAUSE_S))
            try:
                answer = self.client.request(method, url, json=body)
            except httpx.TransportError:
                continue
            if answer.status_code < 500 or answer.status_code == 507:
                return answer
        raise TransferError("the server cannot be reached any more")


def open_uploads(client: httpx.Client) -> Iterable[Any]:
    cursor: dict[str, str] = {}
    while True:
        page = body_of(client.get("/api/v1/uploads", params={"state": "receiving", "limit": PAGE, **cursor}))
        yield from page["items"]
        if page["next"] is None:
            return
        cursor = {"cursor": page["next"]}


def _identity(upload: Mapping[str, Any]) -> tuple[str, int, str]:
    return upload["blake3"], upload["length"], upload["relative_path"]


def _in_groups(numbers: list[int], size: int) -> Iterable[list[int]]:
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


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
