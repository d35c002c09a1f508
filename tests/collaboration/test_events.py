"""The feed: complete, in one order, and only what the asker may know."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from annotomy.actor import SYSTEM
from annotomy.collaboration.feed import number_new_events
from annotomy.events import Event, emit
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.serve import Serve


async def stored(application: Application, headers: dict[str, str], project_id: str | None = None) -> None:
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in ct_series(2))
    answer = await application.client.post(
        "/dicom-web/studies" + (f"?project_id={project_id}" if project_id else ""),
        headers=headers | {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
        content=body + b"--b--\r\n",
    )
    assert answer.status_code == 200, answer.text


async def log(application: Application, headers: dict[str, str], query: str = "") -> list[Any]:
    answer = await application.client.get(f"/api/v1/events/log?limit=1000{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def project(application: Application, headers: dict[str, str], name: str) -> str:
    answer = await application.client.post("/api/v1/projects", headers=headers, json={"name": name})
    return answer.json()["id"]


async def test_members_learn_what_happens_in_their_project_and_others_do_not(application: Application) -> None:
    owner, stranger = await application.headers("owner"), await application.headers("stranger")
    project_id = await project(application, owner, "shared")
    await stored(application, owner, project_id)
    types = [event["type"] for event in await log(application, owner, f"&project_id={project_id}")]
    assert types == ["project.created", "study.stored"]
    assert [event["type"] for event in await log(application, stranger)] == ["session.started"]
    me = (await application.client.get("/api/v1/users/me", headers=stranger)).json()
    joined = await application.client.post(
        f"/api/v1/projects/{project_id}/members", headers=owner, json={"user_id": me["id"], "role": "viewer"}
    )
    assert joined.status_code == 201, joined.text
    assert "study.stored" in [event["type"] for event in await log(application, stranger)]


async def test_an_event_of_a_study_that_a_rule_hides_is_hidden(application: Application) -> None:
    owner, reader = await application.headers("owner"), await application.headers("reader")
    project_id = await project(application, owner, "ruled")
    await stored(application, owner, project_id)
    me = (await application.client.get("/api/v1/users/me", headers=reader)).json()
    await application.client.post(
        f"/api/v1/projects/{project_id}/members", headers=owner, json={"user_id": me["id"], "role": "viewer"}
    )
    assert "study.stored" in [event["type"] for event in await log(application, reader)]
    rule = {
        "effect": "DENY",
        "level": "STUDY",
        "attribute": "Modality",
        "operator": "EQ",
        "value": "CT",
        "role": "viewer",
    }
    made = await application.client.post(f"/api/v1/projects/{project_id}/rules", headers=owner, json=rule)
    assert made.status_code == 201, made.text
    assert "study.stored" not in [event["type"] for event in await log(application, reader)]


async def test_an_event_that_commits_late_gets_a_later_place(application: Application) -> None:
    """The one that began first commits last: a reader who read meanwhile must not miss it."""
    db = application.services.db
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with db.write(SYSTEM) as tx:
            await emit(tx, Event(type="test.slow", object_kind="test", object_id="1"))
            began.set()
            await may_end.wait()

    running = asyncio.create_task(slow())
    await began.wait()
    async with db.write(SYSTEM) as tx:
        await emit(tx, Event(type="test.quick", object_kind="test", object_id="2"))
    await number_new_events(db)
    async with db.read(SYSTEM) as tx:
        quick = await tx.fetchval("select seq from events where type = 'test.quick'")
    may_end.set()
    await running
    await number_new_events(db)
    async with db.read(SYSTEM) as tx:
        assert await tx.fetchval("select seq from events where type = 'test.slow'") > quick


async def test_numbers_have_no_gaps_however_many_give_them(application: Application) -> None:
    db = application.services.db

    async def work(number: int) -> None:
        for turn in range(10):
            async with db.write(SYSTEM) as tx:
                await emit(tx, Event(type="test.made", object_kind="test", object_id=f"{number}-{turn}"))
            await number_new_events(db)

    await asyncio.gather(*(work(number) for number in range(8)))
    async with db.read(SYSTEM) as tx:
        seqs = [row["seq"] for row in await tx.fetch("select seq from events order by seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= 80


async def test_the_log_pages(application: Application) -> None:
    owner = await application.headers("owner")
    for number in range(5):
        await project(application, owner, f"project {number}")
    seen: list[Any] = []
    after = 0
    while True:
        page = (await application.client.get(f"/api/v1/events/log?limit=2&after={after}", headers=owner)).json()
        seen += page["items"]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == await log(application, owner)


@pytest.mark.parametrize("processes", ["2"])
def test_a_stream_tells_what_happens_in_another_process_and_goes_on_where_it_stood(
    tmp_path_factory: pytest.TempPathFactory, processes: str
) -> None:
    serve = Serve(tmp_path_factory.mktemp("events") / "data", ANNOTOMY_HTTP_PROCESSES=processes).start()
    try:
        asyncio.run(_follow(serve))
    finally:
        serve.stop()


async def test_a_stream_ends_when_its_session_does(application: Application) -> None:
    headers = await application.headers("owner")
    live = application.app.state.live
    authenticator = application.app.state.authenticator
    actor = await authenticator.from_header(headers["Authorization"], "127.0.0.1")
    pieces = live.stream(
        actor,
        after=0,
        project_id=None,
        still_allowed=lambda: authenticator.from_header(headers["Authorization"], "127.0.0.1"),
        draining=lambda: False,
    )
    assert b"retry" in await anext(pieces)
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("update sessions set revoked_at = now()")

    async def rest() -> None:
        async for _ in pieces:
            pass

    await asyncio.wait_for(rest(), timeout=30)


async def _follow(serve: Serve) -> None:
    with serve.client() as signed_in:
        headers = {"authorization": signed_in.headers["authorization"]}
    async with httpx.AsyncClient(base_url=serve.address, headers=headers, timeout=30) as client:
        async with _stream(client, {}) as events:
            position = (await anext(events))["id"]
            made = [await client.post("/api/v1/projects", json={"name": f"live {n}"}) for n in range(6)]
            ids = [answer.json()["id"] for answer in made]
            told = [await anext(events) for _ in ids]
            assert [event["data"]["object"]["id"] for event in told] == ids
        async with _stream(client, {"Last-Event-ID": position}) as events:
            await anext(events)
            again = [await anext(events) for _ in ids]
            assert [event["data"]["seq"] for event in again] == [event["data"]["seq"] for event in told]


@asynccontextmanager
async def _stream(client: httpx.AsyncClient, headers: dict[str, str]) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
    async with client.stream("GET", "/api/v1/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _messages(answer)


async def _messages(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    message: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if not line and message:
            yield message
            message = {}
        elif name == "data":
            message["data"] = json.loads(value)
        elif name:
            message[name] = value
