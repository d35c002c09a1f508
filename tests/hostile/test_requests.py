"""Hostile requests: bodies over a limit, JSON bombs, text that no database holds. In process, with small limits."""

import gzip
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from annotomy.app import open_services
from annotomy.archive import spool
from annotomy.dicomweb import stow as stow_edge
from annotomy.services import Services
from annotomy.settings import Settings
from tests.support.application import Application
from tests.support.dicom_files import ct_series

LIMIT_BYTES = 2_000_000
BOUNDARY = "boundary-of-a-test"
MULTIPART = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
JSON = {"Content-Type": "application/json"}
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
async def services(database_url: str, tmp_path: Path) -> AsyncGenerator[Services]:
    """As the shared one, with a small limit for uploads and for instances."""
    limits = {"ANNOTOMY_UPLOAD_LIMIT_BYTES": str(LIMIT_BYTES), "ANNOTOMY_INSTANCE_LIMIT_BYTES": str(LIMIT_BYTES // 2)}
    settings = Settings.from_environment({"ANNOTOMY_DATA": str(tmp_path / "data"), **limits})
    async with open_services(settings, database_url) as opened:
        yield opened


class Body:
    """A body that counts what of it was taken."""

    def __init__(self, size: int, head: bytes = b"") -> None:
        self.size, self.taken, self._head = size, 0, head

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._head
        while self.taken < self.size:
            self.taken += 65536
            yield bytes(65536)


PART = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()


async def test_stow_over_the_limit_is_refused_before_its_bytes_or_where_it_passes_the_limit(
    application: Application,
) -> None:
    headers = await application.headers("owner") | MULTIPART
    announced = Body(LIMIT_BYTES * 100)
    told = {"Content-Length": str(LIMIT_BYTES * 100)}
    answer = await application.client.post("/dicom-web/studies", content=announced, headers=headers | told)
    assert (answer.status_code, answer.json()["limit_bytes"]) == (413, LIMIT_BYTES)
    assert announced.taken == 0
    for lie in ("-1", "1e9", "²", "9" * 30):
        answer = await application.client.post(
            "/dicom-web/studies",
            content=Body(0),
            headers=[(name.encode(), value.encode()) for name, value in (headers | {"Content-Length": lie}).items()],
        )
        assert answer.status_code in (400, 413)
    chunked = Body(LIMIT_BYTES * 100)
    answer = await application.client.post("/dicom-web/studies", content=chunked, headers=headers)
    assert answer.status_code == 413
    assert chunked.taken < LIMIT_BYTES * 2
    one_part = Body(LIMIT_BYTES * 100, PART)
    answer = await application.client.post("/dicom-web/studies", content=one_part, headers=headers)
    assert answer.status_code == 413
    assert one_part.taken < LIMIT_BYTES * 2
    folder = application.services.settings.spool_dir
    assert not list(folder.glob("stow-*")), "nothing of it stays on the disk"


async def test_a_refused_instance_that_went_to_a_file_leaves_no_file(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 1000)
    headers = await application.headers("owner") | MULTIPART
    body = b"".join(PART + data + b"\r\n" for data in (b"junk" * 5000, *ct_series(1))) + f"--{BOUNDARY}--".encode()
    answer = await application.client.post("/dicom-web/studies", content=body, headers=headers)
    assert answer.status_code == 202
    assert not list(application.services.settings.spool_dir.glob("stow-*"))


async def test_more_parts_than_are_answered_are_refused(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow_edge, "MAX_PARTS", 3)
    headers = await application.headers("owner") | MULTIPART
    body = (PART + b"x\r\n") * 4 + f"--{BOUNDARY}--".encode()
    assert (await application.client.post("/dicom-web/studies", content=body, headers=headers)).status_code == 413


async def test_an_upload_over_the_limit_is_refused_before_its_bytes(application: Application) -> None:
    headers = await application.headers("owner") | TUS
    chunk = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    body = Body(LIMIT_BYTES * 100)
    create = headers | {"Upload-Length": str(LIMIT_BYTES + 1), "Content-Type": chunk["Content-Type"]}
    answer = await application.client.post("/api/v1/uploads", content=body, headers=create)
    assert (answer.status_code, body.taken) == (413, 0)
    made = await application.client.post("/api/v1/uploads", headers=headers | {"Upload-Length": "1000"})
    url = made.headers["location"]
    announced = Body(LIMIT_BYTES)
    told = headers | chunk | {"Content-Length": str(LIMIT_BYTES)}
    assert (await application.client.patch(url, content=announced, headers=told)).status_code == 413
    assert announced.taken == 0
    chunked = Body(LIMIT_BYTES)
    assert (await application.client.patch(url, content=chunked, headers=headers | chunk)).status_code == 413
    assert chunked.taken <= 65536
    assert (await application.client.head(url, headers=headers)).headers["upload-offset"] == "0"


@pytest.mark.parametrize(
    "body",
    [
        b'{"username":"a","password":"b","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000, b'{"username":' + b'{"a":' * 50_000, b'{"username":1e999999}', b'{"username":"\xff"}',
        b'{"username":"\\ud800","password":"x"}', b'{"username":"a\\u0000b","password":"x"}',
        b'{"username":' + b"9" * 100_000 + b"}", b"", b"\x00", gzip.compress(b"{}"),
    ],
    ids=["deep", "open", "deep object", "huge number", "no text", "half a character", "NUL", "long number", "nothing", "zero", "gzip"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/v1/auth/token", "/api/v1/projects"])
async def test_json_that_is_a_bomb_or_no_text_is_a_bad_request(
    application: Application, body: bytes, path: str
) -> None:
    headers = await application.headers("admin") | JSON
    answer = await application.client.post(path, content=body.replace(b"username", b"name"), headers=headers)
    assert answer.status_code == 400, answer.text
    answer = await application.client.post(path, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_body_of_json_over_the_limit_is_refused(application: Application) -> None:
    headers = await application.headers("admin") | JSON
    body = Body(40 << 20, b'{"name": "')
    assert (await application.client.post("/api/v1/projects", content=body, headers=headers)).status_code == 413
    assert body.taken < 20 << 20


@pytest.mark.parametrize(
    "path",
    ["/dicom-web/studies?PatientID=%00", "/dicom-web/studies/%00/metadata", "/dicom-web/studies/1.2%00/thumbnail",
     "/dicom-web/studies/%ed%a0%80/metadata", "/dicom-web/studies?PatientName=%ff%fe", "/dicom-web/studies?StudyDate=%00-",
     "/dicom-web/studies?limit=" + "9" * 40, "/dicom-web/studies?limit=%C2%B2", "/dicom-web/studies?offset=" + "9" * 40,
     "/api/v1/jobs/%00", "/dicom-web/studies/1/series/2/instances/3/frames/%C2%B2", "/dicom-web/studies?" + "PatientID=x&" * 500],
)  # fmt: skip
async def test_text_that_no_database_holds_is_no_fault_of_the_server(application: Application, path: str) -> None:
    answer: Any = await application.client.get(path, headers=await application.headers("owner"))
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/api/v1/events/log?after={1 << 70}", {}),
        (f"/api/v1/annotations?frame_number={1 << 40}", {}),
        (f"/api/v1/audit?after={1 << 70}", {}),
        ("/api/v1/events", {"Last-Event-ID": "\u00b2"}),
    ],
)
async def test_a_number_that_no_column_holds_is_a_bad_request(
    application: Application, path: str, headers: dict[str, str]
) -> None:
    sent = [(name, value.encode("latin-1")) for name, value in (await application.headers("admin") | headers).items()]
    answer = await application.client.get(path, headers=sent)  # pyright: ignore[reportArgumentType]
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "urn:annotomy:problem:bad-request"


async def test_an_entity_tag_of_digits_that_are_none_is_a_bad_request(application: Application) -> None:
    headers = await application.headers("owner")
    path = "/api/v1/segmentations/00000000-0000-4000-8000-000000000000"
    sent = [*((n, v.encode()) for n, v in headers.items()), ("If-Match", "\u00b2".encode("latin-1"))]
    answer = await application.client.patch(path, json={}, headers=sent)  # pyright: ignore[reportArgumentType]
    assert answer.status_code == 400, answer.text
