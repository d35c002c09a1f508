"""Reads of patient data are recorded, downloads before their first byte, and no patient is named."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from pydicom.uid import generate_uid

from annotomy.actor import SYSTEM
from annotomy.audit import Entry
from annotomy.ops.audit_queue import AuditQueue
from tests.access.archives import VALUES, headers_only
from tests.support.application import Application


async def _stored(application: Application, headers: dict[str, str], patient_id: str) -> dict[str, str]:
    attributes = {name: values[0] for name, values in VALUES.items()} | {"PatientID": patient_id}
    attributes |= {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + headers_only(attributes) + b"\r\n--b--\r\n"
    answer = await application.client.post(
        "/dicom-web/studies",
        content=body,
        headers=headers | {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    assert answer.status_code == 200, answer.text
    return attributes


async def _lines(application: Application, **asked: Any) -> list[dict[str, Any]]:
    admin = await application.headers("admin")
    answer = await application.client.get("/api/v1/audit", params={"limit": 1000, **asked}, headers=admin)
    return answer.json()["items"]


async def test_reads_are_recorded_under_one_pseudonym_for_a_patient(application: Application) -> None:
    owner = await application.headers("owner")
    first, second, third = [
        await _stored(application, owner, patient) for patient in ("SECRET-7", "SECRET-7", "SECRET-8")
    ]
    for one in (first, second, third):
        for _ in range(3):
            path = f"/dicom-web/studies/{one['StudyInstanceUID']}/series/{one['SeriesInstanceUID']}"
            assert (await application.client.get(f"{path}/metadata", headers=owner)).status_code == 200
            assert (await application.client.get(path, headers=owner)).status_code == 200
    await application.client.get("/dicom-web/studies?PatientID=SECRET-7", headers=owner)
    lines = await _lines(application, actor="owner")
    read = [line for line in lines if line["action"] == "study.read"]
    assert [line["object"]["id"] for line in read] == [one["SeriesInstanceUID"] for one in (first, second, third)]
    assert read[0]["patient"] == read[1]["patient"] != read[2]["patient"]
    assert len(read[0]["patient"]) == 32
    retrieved = [line for line in lines if line["action"] == "study.retrieved"]
    assert len(retrieved) == 9, "every download is recorded; repeated looks are one record a minute"
    assert [line["action"] for line in lines if line["action"] == "study.searched"] == ["study.searched"]
    stored = [line for line in lines if line["action"] == "study.stored"]
    assert stored[0]["patient"] == read[0]["patient"]
    assert "SECRET" not in str(lines)


@asynccontextmanager
async def _connections_cut(application: Application) -> AsyncGenerator[asyncpg.Connection]:
    """PostgreSQL ends every connection that writes an audit record, in the middle of its transaction. `cuts` counts them."""
    connection = await asyncpg.connect(application.services.db.url)
    try:
        await connection.execute(
            "create sequence cuts; create function cut() returns trigger language plpgsql as $$ begin"
            " perform nextval('cuts'); perform pg_terminate_backend(pg_backend_pid()); return new; end $$;"
            " create trigger cut before insert on audit_outbox for each row execute function cut()"
        )
        yield connection
    finally:
        await connection.execute("drop trigger if exists cut on audit_outbox")
        await connection.close()


async def test_a_download_that_cannot_be_recorded_is_refused(application: Application) -> None:
    owner = await application.headers("owner")
    one = await _stored(application, owner, "P")
    async with _connections_cut(application):
        answer = await application.client.get(f"/dicom-web/studies/{one['StudyInstanceUID']}", headers=owner)
        assert answer.status_code >= 500
        assert b"DICM" not in answer.content
    answer = await application.client.get(f"/dicom-web/studies/{one['StudyInstanceUID']}", headers=owner)
    assert answer.status_code == 200


async def test_what_is_noted_survives_while_the_database_is_away(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: AuditQueue = application.app.state.audit_queue
    await application.headers("admin")
    monkeypatch.setattr("annotomy.ops.audit_queue.RETRY_S", 0.0)
    async with _connections_cut(application) as connection:
        await queue.note(SYSTEM, Entry(action="test.noted", object_kind="thing", object_id="1"))
        async with asyncio.timeout(30):
            while await connection.fetchval("select last_value from cuts") < 3:
                await asyncio.sleep(0)
    await queue.drain()
    assert len(await _lines(application, action="test.noted")) == 1
