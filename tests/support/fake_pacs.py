"""A DICOMweb archive of a test: real HTTP on loopback, a dictionary of instances, and a switch for each way to misbehave."""

import asyncio
import io
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from pydicom import dcmread
from pydicom.dataset import Dataset

from annotomy.dicom.multipart import boundary_of, read_parts

BOUNDARY = "fake"
JSON = b"application/dicom+json"
ENDLESS_PIECES = 200
"""Of 1 MiB: far more than anybody should read."""
Reply = tuple[int, bytes, bytes]
"""Status, content type, body."""


@dataclass
class FakePacs:
    """`requests` are (method, path) in their order; `answers` overrules single paths: a reply, or None to cut the connection."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    answers: list[tuple[str, Callable[[], Reply | None]]] = field(
        default_factory=list[tuple[str, Callable[[], "Reply | None"]]]
    )
    """(pattern of "METHOD path", what to answer): the first that fits."""
    cut_after: int | None = None
    """Files of a multipart answer, after which the connection is cut."""
    strays: list[bytes] = field(default_factory=list[bytes])
    """Put in front of every answer with files."""
    refuses: dict[str, int] = field(default_factory=dict[str, int])
    """SOP Instance UID -> Failure Reason of STOW-RS."""
    silent_about: set[str] = field(default_factory=set[str])
    """Instances that STOW-RS takes without a word."""
    endless: bool = False
    stalls: asyncio.Event | None = None
    """Answers wait for it."""
    port: int = 0
    sent_endlessly: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def hold(self, *files: bytes) -> None:
        for file in files:
            self.files[str(_header(file).SOPInstanceUID)] = file

    # -- ASGI --------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix("/dicom-web")
        self.requests.append((scope["method"], path))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self.stalls is not None:
            await self.stalls.wait()
        if self.endless:
            await self._endless(send)
            return
        for pattern, answer in self.answers:
            if re.fullmatch(pattern, f"{scope['method']} {path}"):
                reply = answer()
                if reply is None:
                    raise ConnectionResetError("the test wants it so")
                await _reply(send, *reply)
                return
        if scope["method"] == "POST":
            await _reply(send, *await self._stow(scope, receive))
        elif re.fullmatch(r"/studies/[\d.]+/series/[\d.]+(/instances/[\d.]+)?", path):
            await self._files(path.split("/"), send)
        else:
            await _reply(send, *self._qido(path.split("/"), dict(parse_qsl(scope["query_string"].decode()))))

    def _qido(self, path: list[str], asked: dict[str, str]) -> Reply:
        level, study, series = path[-1], *[*path[2::2], "", ""][:2]
        rows: dict[str, dict[str, Any]] = {}
        for file in self.files.values():
            header = _header(file)
            if study in ("", header.StudyInstanceUID) and series in ("", header.SeriesInstanceUID):
                key = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}[
                    level
                ]
                rows.setdefault(str(header[key].value), _row(header, level, self.files.values()))
        keys = {name: value for name, value in asked.items() if name not in ("limit", "offset", "includefield")}
        found = [row for row in rows.values() if _matches(row, keys)]
        first = int(asked.get("offset", 0))
        page = found[first : first + int(asked.get("limit", 1000))]
        return 200, JSON, json.dumps(page).encode()

    async def _files(self, path: list[str], send: Any) -> None:
        chosen = [
            file
            for uid, file in self.files.items()
            if _header(file).SeriesInstanceUID == path[4] and (len(path) < 7 or uid == path[6])
        ]
        if not chosen:
            await _reply(send, 404, b"text/plain", b"none")
            return
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for number, file in enumerate([*self.strays, *chosen]):
            if number == self.cut_after:
                raise ConnectionResetError("the test wants it so")
            part = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file + b"\r\n"
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": f"--{BOUNDARY}--".encode()})

    async def _stow(self, scope: Any, receive: Any) -> Reply:
        kind = next(value for name, value in scope["headers"] if name == b"content-type").decode()

        async def body() -> AsyncGenerator[bytes]:
            while True:
                message = await receive()
                yield message.get("body", b"")
                if not message.get("more_body"):
                    return

        kept, failed = list[Any](), list[Any]()
        async for part in read_parts(body(), boundary_of(kind)):
            file = b"".join([piece async for piece in part.body])
            header = _header(file)
            item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [str(header.SOPInstanceUID)]}}
            if header.SOPInstanceUID in self.refuses:
                failed.append(item | {"00081197": {"vr": "US", "Value": [self.refuses[header.SOPInstanceUID]]}})
                continue
            self.files[str(header.SOPInstanceUID)] = file
            if header.SOPInstanceUID not in self.silent_about:
                kept.append(item)
        answer: dict[str, Any] = {}
        if kept:
            answer["00081199"] = {"vr": "SQ", "Value": kept}
        if failed:
            answer["00081198"] = {"vr": "SQ", "Value": failed}
        return (200 if not failed else 202 if kept else 409), JSON, json.dumps(answer).encode()

    async def _endless(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", JSON)]})
        self.sent_endlessly = 0
        while self.sent_endlessly < ENDLESS_PIECES:  # uvicorn does not tell a sender that nobody listens any more
            await send({"type": "http.response.body", "body": b"[" * (1 << 20), "more_body": True})
            self.sent_endlessly += 1


@asynccontextmanager
async def fake_pacs(*files: bytes, port: int = 0) -> AsyncGenerator[FakePacs]:
    pacs = FakePacs()
    pacs.hold(*files)
    config = uvicorn.Config(pacs, host="127.0.0.1", port=port, log_level="critical", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    serving = asyncio.create_task(server._serve())  # pyright: ignore[reportPrivateUsage] - without signals, which are the test's
    while not server.started:
        await asyncio.sleep(0.005)
    pacs.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield pacs
    finally:
        server.should_exit = server.force_exit = True
        await serving


async def _reply(send: Any, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _header(file: bytes) -> Dataset:
    return dcmread(io.BytesIO(file), stop_before_pixels=True)


def _row(header: Dataset, level: str, files: Any) -> dict[str, Any]:
    wanted = ["StudyInstanceUID", "StudyDate", "PatientID", "PatientName", "AccessionNumber", "StudyDescription"]
    if level != "studies":
        wanted = ["StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber"]
    if level == "instances":
        wanted += ["SOPInstanceUID", "SOPClassUID"]
    row = Dataset()
    for keyword in wanted:
        if keyword in header:
            row[keyword] = header[keyword]
    if level == "studies":
        same = [one for one in map(_header, files) if one.StudyInstanceUID == header.StudyInstanceUID]
        row.ModalitiesInStudy = sorted({str(one.Modality) for one in same})
        row.NumberOfStudyRelatedInstances = len(same)
    return row.to_json_dict()


def _matches(row: dict[str, Any], keys: dict[str, str]) -> bool:
    for keyword, asked in keys.items():
        held = Dataset.from_json(row).get(keyword)
        values = (
            [str(one) for one in held]
            if isinstance(held, (list, tuple)) or keyword == "ModalitiesInStudy"
            else [str(held)]
        )
        if keyword == "StudyDate" and "-" in asked:
            low, _, high = asked.partition("-")
            if not (values[0] >= low and (not high or values[0] <= high)):
                return False
        elif not any(re.fullmatch(re.escape(asked).replace(r"\*", ".*"), value) for value in values):
            return False
    return True
