"""The log leaves as DICOM audit messages, FHIR AuditEvents or JSON lines - all of it, with a reason, and on record."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fhir.resources.R4B.auditevent import AuditEvent
from lxml import etree

from annotomy.audit import Entry, record_of, write_records
from annotomy.cli import main
from annotomy.ops.audit_codes import details_of, meaning_of
from annotomy.ops.audit_dicom import message_of
from annotomy.ops.audit_search import BATCH_RECORDS, line_of
from tests.audit.records import chained, lines, moment, stored, wrote
from tests.support.application import Application

SCHEMA = etree.RelaxNG(etree.parse(str(Path(__file__).parent / "audit_message.rng")))


async def _export(application: Application, form: str, headers: dict[str, str], **filter_: Any) -> Any:
    return await application.client.post(
        "/api/v1/audit/export", json={"format": form, "reason": "inspection", "filter": filter_}, headers=headers
    )


async def _busy(application: Application) -> dict[str, str]:
    """Records of many kinds; the administrator's headers."""
    admin, owner = await application.headers("admin"), await application.headers("owner")
    project = (await application.client.post("/api/v1/projects", json={"name": "p"}, headers=owner)).json()["id"]
    study = await stored(application, owner)
    await application.client.get(
        f"/dicom-web/studies/{study}", headers=owner | {"Annotomy-Reason": "%EC%82%AC%EC%9C%A0"}
    )
    await application.client.get("/dicom-web/studies", headers=owner)
    await application.client.get(f"/api/v1/projects/{project}", headers=await application.headers("stranger"))
    await application.client.post("/api/v1/auth/token", json={"username": "owner", "password": "wrong wrong wrong"})
    person = await application.add_user("someone")
    await wrote(application.services, person, moment("2024-01-01"), "odd.thing", reason='<&"\x01\x85>', object_id="")
    return admin


async def test_dicom_messages_fit_the_schema_of_the_standard_and_lose_nothing(application: Application) -> None:
    admin = await _busy(application)
    answer = await _export(application, "dicom", admin)
    assert answer.headers["content-type"].startswith("application/xml")
    root = etree.fromstring(answer.content)
    found = {one["seq"]: one for one in await lines(application, admin)}
    assert len(root) >= 8
    for message in root:
        SCHEMA.assertValid(etree.ElementTree(message))
        told = {
            one.get("type"): base64.b64decode(one.get("value", "")).decode()
            for one in message.iter("ParticipantObjectDetail")
        }
        line = found[int(told["seq"])]
        assert told["action"] == line["action"]
        assert told.get("reason", "") == line["reason"]
        assert message.find("ActiveParticipant").get("UserID") == line["actor"]  # pyright: ignore
    codes = {message.find("EventIdentification/EventID").get("csd-code") for message in root}  # pyright: ignore
    assert {"110104", "110112", "110113", "110114"} <= codes


def test_the_schema_refuses_what_is_no_audit_message() -> None:
    for wrong in ("<AuditMessage/>", "<AuditMessages/>"):
        assert not SCHEMA.validate(etree.ElementTree(etree.fromstring(wrong)))


async def test_fhir_events_are_valid_resources(application: Application) -> None:
    admin = await _busy(application)
    answer = await _export(application, "fhir", admin)
    events = [json.loads(line) for line in answer.text.rstrip("\n").split("\n")]
    assert len(events) >= 8
    for event in events:
        AuditEvent.model_validate(event)
    [sent] = [one for one in events if one["type"]["code"] == "110104" and one["action"] == "R"]
    assert sent["purposeOfEvent"] == [{"text": "사유"}]
    assert {one["what"]["identifier"]["system"] for one in sent["entity"]} == {
        "urn:dicom:uid",
        "urn:annotomy:pseudonym",
    }
    [refused] = [one for one in events if one["subtype"][-1]["code"] == "security.sign_in_refused"]
    assert (refused["type"]["code"], refused["outcome"]) == ("110114", "4")


async def test_json_lines_are_the_records_of_the_search_over_batches(application: Application) -> None:
    admin = await application.headers("admin")
    person = await application.add_user("someone")
    many = 2 * BATCH_RECORDS + 1
    async with application.services.db.write(person) as tx:
        made = [record_of(person, Entry(action="test.done", object_kind="t", object_id=str(n))) for n in range(many)]
        await write_records(tx, made)
    answer = await _export(application, "jsonl", admin, actor="someone")
    exported = [json.loads(line) for line in answer.text.rstrip("\n").split("\n")]
    assert [one["object"]["id"] for one in exported] == [str(n) for n in range(many)]
    assert (await lines(application, admin, actor="someone"))[:1] == exported[:1]


async def test_an_export_needs_a_reason_and_is_recorded_with_it(application: Application) -> None:
    admin = await application.headers("admin")
    for reason, slug in ((None, "bad-request"), ("", "bad-request"), ("  ", "reason-required")):
        body = {"format": "jsonl"} if reason is None else {"format": "jsonl", "reason": reason}
        answer = await application.client.post("/api/v1/audit/export", json=body, headers=admin)
        assert answer.json()["type"].endswith(slug), answer.text
    await _export(application, "fhir", admin, action="user")
    [line] = await lines(application, admin, action="audit.exported", outcome="success")
    assert line["reason"] == "inspection"
    assert (line["detail"]["filter"], line["detail"]["format"]) == ({"action": "user"}, "fhir")


async def test_an_auditor_of_a_project_exports_that_project_alone(application: Application) -> None:
    owner, stranger = await application.headers("owner"), await application.headers("stranger")
    mine, _ = [
        (await application.client.post("/api/v1/projects", json={"name": name}, headers=owner)).json()["id"]
        for name in ("a", "b")
    ]
    auditor = await application.headers("auditor")
    me = (await application.client.get("/api/v1/users/me", headers=auditor)).json()["id"]
    member = {"user_id": me, "role": "auditor"}
    await application.client.post(f"/api/v1/projects/{mine}/members", json=member, headers=owner)
    answer = await _export(application, "jsonl", auditor)
    assert {json.loads(line)["project_id"] for line in answer.text.rstrip("\n").split("\n")} == {mine}
    assert (await _export(application, "jsonl", stranger)).status_code == 403


async def test_the_command_exports_a_time(application: Application, tmp_path: Path) -> None:
    services = application.services
    person = await application.add_user("someone")
    for day in ("2024-01-01", "2024-02-01", "2024-03-01"):
        await wrote(services, person, moment(day), "test.done", object_id=day)
    await chained(services)
    environment = {"ANNOTOMY_DATABASE_URL": services.db.url, "ANNOTOMY_DATA": str(services.settings.data_dir)}
    out = tmp_path / "out.jsonl"
    asked = ["audit", "export", "--format", "jsonl", "--since", "2024-01-15", "--until", "2024-03-01"]
    run = await asyncio.to_thread(
        CliRunner().invoke, main, [*asked, "--reason", "why", "--output", str(out)], env=environment
    )
    assert run.exit_code == 0, run.output
    assert [json.loads(line)["object"]["id"] for line in out.read_text().splitlines()] == ["2024-02-01"]
    [line] = await lines(application, await application.headers("admin"), action="audit.exported")
    assert (line["reason"], line["actor"]) == ("why", "system")


@pytest.mark.parametrize("action", ["study.stored", "audit.viewed", "rule.deleted", "nobody.knows", "word"])
async def test_every_action_has_a_valid_message(application: Application, action: str) -> None:
    person = await application.add_user("someone")
    await wrote(application.services, person, moment("2024-01-01"), action, object_kind="", object_id="")
    await chained(application.services)
    async with application.services.db.read(person) as tx:
        line = line_of(await tx.fetchrow("select * from audit where action = $1", action))
    SCHEMA.assertValid(etree.ElementTree(etree.fromstring(message_of(line, "here"))))
    assert ("action", action) in details_of(line)
    assert meaning_of(action).verb in "CRUDE"
