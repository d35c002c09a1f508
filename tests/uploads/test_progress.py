"""What events tell of an upload is what the upload itself says, and only its owner and administrators hear of it."""

from typing import Any

import pytest

from annotomy.collaboration.feed import number_new_events
from annotomy.uploads import jobs, progress
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs
from tests.uploads.test_uploads import CHUNK, zipped

TOLD = ("state", "offset", "length", "bytes_per_second", "files_done")


async def events_of(application: Application, headers: dict[str, str], upload_id: str) -> list[Any]:
    await number_new_events(application.services.db)
    found = (await application.client.get("/api/v1/events/log", params={"limit": 200}, headers=headers)).json()
    return [one for one in found["items"] if one["object"] == {"kind": "upload", "id": upload_id}]


async def test_events_and_the_upload_agree_at_every_step(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PROGRESS_S", 0.0)
    monkeypatch.setattr(jobs, "PROGRESS_S", 3600.0)  # storing takes as long as the machine needs
    headers = await application.headers("owner")
    data = zipped([*ct_series(2), b"no image"])
    create = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(data))}
    url = (await application.client.post("/api/v1/uploads", headers=headers | create)).headers["location"]
    upload_id = url.rpartition("/")[2]

    async def last_event() -> Any:
        shown = (await application.client.get(url, headers=headers)).json()
        event = (await events_of(application, headers, upload_id))[-1]
        assert {name: event["data"][name] for name in TOLD} == {name: shown[name] for name in TOLD}, event["type"]
        return event

    half = len(data) // 2
    for at, piece in ((0, data[:half]), (half, data[half:])):
        await application.client.patch(url, headers=headers | CHUNK | {"Upload-Offset": str(at)}, content=piece)
        event = await last_event()
    assert event["type"] == "upload.received" and event["data"]["state"] == "verifying"
    assert event["data"]["bytes_per_second"] > 0
    await run_queued_jobs(application.services)
    event = await last_event()
    assert event["type"] == "upload.stored" and event["data"]["files_done"] == 3
    assert event["data"]["by_state"] == {"stored": 2, "refused": 1}
    types = [one["type"] for one in await events_of(application, headers, upload_id)]
    assert types == ["upload.progressed", "upload.progressed", "upload.received", "upload.ingesting", "upload.stored"]


async def test_members_hear_nothing_of_an_upload_and_administrators_see_numbers_alone(
    application: Application,
) -> None:
    headers, member, admin = [await application.headers(name) for name in ("owner", "member", "admin")]
    project = (await application.client.post("/api/v1/projects", json={"name": "p"}, headers=headers)).json()["id"]
    me = (await application.client.get("/api/v1/users/me", headers=member)).json()["id"]
    body = {"user_id": me, "role": "project_admin"}
    answer = await application.client.post(f"/api/v1/projects/{project}/members", json=body, headers=headers)
    assert answer.is_success, answer.text
    draft = {"Upload-Complete": "?1"}
    made = await application.client.post(
        f"/api/v1/uploads?filename=name-of-somebody&project_id={project}", headers=headers | draft, content=b"junk"
    )
    url = made.headers["location"]
    upload_id = url.rpartition("/")[2]
    await run_queued_jobs(application.services)
    assert [one["type"] for one in await events_of(application, headers, upload_id)][-1] == "upload.failed"
    assert await events_of(application, member, upload_id) == []
    assert (await application.client.get(url, headers=member)).status_code == 404
    assert [one["type"] for one in await events_of(application, admin, upload_id)][-1] == "upload.failed"
    seen = (await application.client.get(url, headers=admin)).json()
    assert (seen["state"], seen["offset"], seen["filename"], seen["files"]) == ("failed", 4, "", [])
