"""Audit records of long ago, written the way the server writes them, and bodies for the tests of this folder."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from pydicom.uid import generate_uid

from annotomy.actor import SYSTEM, Actor
from annotomy.audit import Entry, record_of, write_records
from annotomy.ops.audit_chain import AuditChain
from annotomy.services import Services
from tests.access.archives import VALUES, headers_only
from tests.support.application import Application


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def wrote(
    services: Services, actor: Actor, at: datetime, action: str, *, patient: str = "", **entry: Any
) -> None:
    """One sealed record of that time, in the outbox."""
    made = Entry(action=action, **{"object_kind": "thing", "object_id": "1", **entry})
    async with services.db.write(SYSTEM) as tx:
        await write_records(tx, [msgspec.structs.replace(record_of(actor, made, patient=patient), at=at)])


async def chained(services: Services) -> AuditChain:
    chain = AuditChain(services.db, services.settings.data_dir)
    await chain.append_all()
    return chain


async def stored(application: Application, headers: dict[str, str], patient_id: str = "P") -> str:
    """The Study Instance UID of a study of one instance."""
    attributes = {name: values[0] for name, values in VALUES.items()} | {"PatientID": patient_id}
    attributes |= {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + headers_only(attributes) + b"\r\n--b--\r\n"
    answer = await application.client.post(
        "/dicom-web/studies",
        content=body,
        headers=headers | {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    assert answer.status_code == 200, answer.text
    return attributes["StudyInstanceUID"]


async def lines(application: Application, headers: dict[str, str], **asked: Any) -> list[dict[str, Any]]:
    answer = await application.client.get("/api/v1/audit", params={"limit": 1000, **asked}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]
