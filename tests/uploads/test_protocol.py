"""The upload protocols: tus 1.0 with its extensions and the IETF draft, over one durable offset."""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import google_crc32c
import pytest
from blake3 import blake3

from annotomy.actor import SYSTEM
from annotomy.uploads.part_file import BUFFER_BYTES, part_file
from annotomy.uploads.sweep import sweep_uploads
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = TUS | {"Content-Type": "application/offset+octet-stream"}
DRAFT = {"Content-Type": "application/partial-upload"}


async def created(application: Application, headers: dict[str, str], length: int | None, **more: str) -> str:
    told = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    answer = await application.client.post("/api/v1/uploads", headers=headers | TUS | told | more)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def sent(application: Application, headers: dict[str, str], url: str, offset: int, data: Any, **more: str) -> Any:
    return await application.client.patch(
        url, headers=headers | CHUNK | {"Upload-Offset": str(offset)} | more, content=data
    )


async def offset_of(application: Application, headers: dict[str, str], url: str) -> int:
    answer = await application.client.head(url, headers=headers | TUS)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


async def test_the_abilities_name_every_extension(application: Application) -> None:
    answer = await application.client.options("/api/v1/uploads", headers=await application.headers("owner"))
    assert answer.status_code == 204
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation", "creation-defer-length", "creation-with-upload", "checksum", "expiration", "termination", "concatenation",
    }  # fmt: skip
    assert "max-append-size=" in answer.headers["upload-limit"]


async def test_a_request_without_the_version_is_refused(application: Application) -> None:
    headers = await application.headers("owner")
    answer = await application.client.post("/api/v1/uploads", headers=headers | {"Upload-Length": "1"})
    assert answer.status_code == 412


async def test_a_length_may_be_told_later_but_not_twice(application: Application) -> None:
    headers = await application.headers("owner")
    [data] = ct_series(1)
    url = await created(application, headers, None)
    assert (await application.client.head(url, headers=headers | TUS)).headers["upload-defer-length"] == "1"
    assert (await sent(application, headers, url, 0, data[:100])).status_code == 204
    length = {"Upload-Length": str(len(data))}
    assert (await sent(application, headers, url, 100, data[100:200], **length)).status_code == 204
    assert (await application.client.head(url, headers=headers | TUS)).headers["upload-length"] == str(len(data))
    changed = await sent(application, headers, url, 200, data[200:], **{"Upload-Length": "7"})
    assert changed.status_code == 409
    assert (await sent(application, headers, url, 200, data[200:])).status_code == 204
    await run_queued_jobs(application.services)
    assert (await application.client.get(url, headers=headers)).json()["state"] == "stored"


async def test_parts_sent_side_by_side_become_one_file(application: Application) -> None:
    headers = await application.headers("owner")
    [data] = ct_series(1)
    thirds = [data[:300], data[300:301], data[301:]]
    urls = [await created(application, headers, len(part), **{"Upload-Concat": "partial"}) for part in thirds]
    unready = {"Upload-Concat": "final;" + " ".join(urls)}
    early = await application.client.post("/api/v1/uploads", headers=headers | TUS | unready)
    assert early.status_code == 409
    answers = await asyncio.gather(
        *(sent(application, headers, url, 0, part) for url, part in zip(urls, thirds, strict=True))
    )
    assert [answer.status_code for answer in answers] == [204, 204, 204]
    final = await application.client.post("/api/v1/uploads", headers=headers | TUS | unready)
    assert final.status_code == 201, final.text
    url = final.headers["location"]
    told = await application.client.head(url, headers=headers | TUS)
    assert told.headers["upload-length"] == told.headers["upload-offset"] == str(len(data))
    assert told.headers["upload-concat"] == unready["Upload-Concat"]
    assert (await sent(application, headers, url, len(data), b"x")).status_code in (409, 410)
    await run_queued_jobs(application.services)
    found = (await application.client.get(url, headers=headers)).json()
    assert found["state"] == "stored", found
    assert not list((application.services.settings.data_dir / "uploads").iterdir())


async def test_somebody_elses_part_cannot_be_named(application: Application) -> None:
    owner, stranger = await application.headers("owner"), await application.headers("stranger")
    url = await created(application, owner, 3, **{"Upload-Concat": "partial"})
    assert (await sent(application, owner, url, 0, b"abc")).status_code == 204
    answer = await application.client.post(
        "/api/v1/uploads", headers=stranger | TUS | {"Upload-Concat": f"final;{url}"}
    )
    assert answer.status_code == 404


DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha1": lambda data: hashlib.sha1(data).digest(),  # noqa: S324 - tus demands it
    "crc32c": lambda data: google_crc32c.Checksum(data).digest(),
    "blake3": lambda data: blake3(data).digest(),
}


@pytest.mark.parametrize("name", DIGESTS)
async def test_each_checksum_passes_what_is_whole_and_refuses_what_is_not(application: Application, name: str) -> None:
    headers = await application.headers("owner")
    data = bytes(range(256)) * ((BUFFER_BYTES + 70_000) // 256)
    url = await created(application, headers, len(data))
    checksum = {"Upload-Checksum": f"{name} {base64.b64encode(DIGESTS[name](data)).decode()}"}
    damaged = await sent(application, headers, url, 0, b"!" + data[1:], **checksum)
    assert damaged.status_code == 460
    assert await offset_of(application, headers, url) == 0
    assert (await sent(application, headers, url, 0, data, **checksum)).status_code == 204


async def test_a_newer_connection_takes_over_and_what_the_older_one_sent_is_kept(application: Application) -> None:
    headers = await application.headers("owner")
    url = await created(application, headers, 30)
    begun, forever = asyncio.Event(), asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"0123456789"
        begun.set()
        await forever.wait()

    older = asyncio.create_task(sent(application, headers, url, 0, stalling()))
    await begun.wait()
    newer = asyncio.create_task(sent(application, headers, url, 10, b"abcdefghij"))
    answers = await asyncio.gather(older, newer)
    assert [answer.status_code for answer in answers] == [423, 204]
    assert answers[0].json()["type"].endswith("upload-handed-over")
    path = part_file(application.services, _id(url))
    assert path.read_bytes() == b"0123456789abcdefghij"


async def test_what_came_before_a_broken_connection_is_kept(application: Application) -> None:
    headers = await application.headers("owner")
    url = await created(application, headers, 100)
    messages: list[Any] = [
        {"type": "http.request", "body": b"a" * 40, "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: Any) -> None:
        answers.append(message)

    asgi: Any = application.app
    all_headers = headers | CHUNK | {"Upload-Offset": "0"}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "PATCH", "scheme": "http", "path": url,
        "raw_path": url.encode(), "query_string": b"", "root_path": "", "server": ("annotomy.test", 80), "client": ("test", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in all_headers.items()],
    }  # fmt: skip
    await asgi(scope, receive, send)
    assert answers[0]["status"] == 400
    assert await offset_of(application, headers, url) == 40
    assert part_file(application.services, _id(url)).read_bytes() == b"a" * 40


async def test_ten_chunks_at_once_need_no_more_connections_than_the_pool_has(application: Application) -> None:
    headers = await application.headers("owner")
    urls = [await created(application, headers, 20) for _ in range(10)]
    together = asyncio.Barrier(10)

    async def slow() -> AsyncIterator[bytes]:
        yield b"0123456789"
        await together.wait()  # every upload is being written at this moment
        yield b"0123456789"

    answers = await asyncio.wait_for(
        asyncio.gather(*(sent(application, headers, url, 0, slow()) for url in urls)), timeout=60
    )
    assert {answer.status_code for answer in answers} == {204}


async def test_an_expired_upload_is_gone(application: Application) -> None:
    headers = await application.headers("owner")
    url = await created(application, headers, 10)
    assert (await sent(application, headers, url, 0, b"12345")).status_code == 204
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("update uploads set expires_at = now() - $1::interval", timedelta(seconds=1))
    assert await sweep_uploads(application.services) == 1
    assert not part_file(application.services, _id(url)).exists()
    assert (await application.client.head(url, headers=headers | TUS)).status_code == 410
    assert (await sent(application, headers, url, 5, b"67890")).status_code == 410


async def test_the_sweep_leaves_living_uploads_and_removes_files_without_a_row(application: Application) -> None:
    headers = await application.headers("owner")
    url = await created(application, headers, 10)
    orphan = part_file(application.services, _id(url)).with_name("0190b0b0-0000-7000-8000-000000000000.part")
    orphan.write_bytes(b"left by a crash")
    assert await sweep_uploads(application.services) == 0
    assert orphan.exists(), "a file that young may belong to a row that is being written"
    os.utime(orphan, (0, 0))
    assert await sweep_uploads(application.services) == 1
    assert not orphan.exists()
    assert part_file(application.services, _id(url)).exists()


async def test_an_upload_whose_job_was_given_up_does_not_stay_on_its_way_for_ever(application: Application) -> None:
    headers = await application.headers("owner")
    url = await created(application, headers, 5)
    assert (await sent(application, headers, url, 0, b"12345")).status_code == 204
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("update jobs set state = 'failed'")
    assert await sweep_uploads(application.services) == 1
    shown = (await application.client.get(url, headers=headers)).json()
    assert (shown["state"], shown["problem"]["type"]) == ("failed", "urn:annotomy:problem:not-taken-in")
    assert not part_file(application.services, _id(url)).exists()


async def test_the_draft_takes_a_whole_file_in_one_request(application: Application) -> None:
    headers = await application.headers("owner")
    [data] = ct_series(1)
    answer = await application.client.post("/api/v1/uploads", headers=headers | {"Upload-Complete": "?1"}, content=data)
    assert answer.status_code == 201, answer.text
    assert answer.headers["upload-complete"] == "?1"
    await run_queued_jobs(application.services)
    assert (await application.client.get(answer.headers["location"], headers=headers)).json()["state"] == "stored"


async def test_the_draft_goes_on_where_it_stood(application: Application) -> None:
    headers = await application.headers("owner")
    [data] = ct_series(1)
    made = await application.client.post(
        "/api/v1/uploads", headers=headers | {"Upload-Complete": "?0"}, content=data[:100]
    )
    assert (made.status_code, made.headers["upload-offset"]) == (201, "100")
    url = made.headers["location"]
    asked = await application.client.head(url, headers=headers)
    assert (asked.status_code, asked.headers["upload-offset"], asked.headers["upload-complete"]) == (204, "100", "?0")
    wrong = await application.client.patch(
        url, headers=headers | DRAFT | {"Upload-Offset": "90", "Upload-Complete": "?1"}, content=data[90:]
    )
    assert (wrong.status_code, wrong.json()["offset"]) == (409, 100)
    last = await application.client.patch(
        url, headers=headers | DRAFT | {"Upload-Offset": "100", "Upload-Complete": "?1"}, content=data[100:]
    )
    assert last.status_code == 204, last.text
    await run_queued_jobs(application.services)
    assert (await application.client.get(url, headers=headers)).json()["state"] == "stored"


async def test_the_list_of_uploads_pages(application: Application) -> None:
    headers = await application.headers("owner")
    made = [await created(application, headers, 5) for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await application.client.get(f"/api/v1/uploads?limit=2{cursor}", headers=headers)).json()
        assert page["total"] == 5
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [str(_id(url)) for url in reversed(made)]


def _id(url: str) -> UUID:
    return UUID(url.rpartition("/")[2])
