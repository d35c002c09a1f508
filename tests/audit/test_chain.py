"""Whoever changes the audit by SQL is found out, with the place of the first record that is not as it was written."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from annotomy.actor import SYSTEM
from annotomy.audit import Entry, record
from annotomy.cli import main
from annotomy.events import Event, emit
from annotomy.ops.audit_chain import AuditChain
from annotomy.services import Services
from tests.support.application import Application

RECORDS = 12


@pytest.fixture
async def chain(services: Services) -> AsyncGenerator[AuditChain]:
    """Of so many records, all of them appended."""
    await _write(services, RECORDS)
    made = AuditChain(services.db, services.settings.data_dir)
    await made.append_all()
    yield made


async def _write(services: Services, count: int) -> None:
    for number in range(count):
        async with services.db.write(SYSTEM) as tx:
            entry = Entry(
                action="test.done", object_kind="thing", object_id=str(number), detail={"n": number, "글": "값"}
            )
            await record(tx, entry)


async def _tamper(services: Services, *statements: str) -> None:
    """As somebody who owns the database: triggers are no hindrance."""
    connection = await asyncpg.connect(services.db.url)
    try:
        for table in ("audit", "audit_checkpoints"):
            await connection.execute(f"alter table {table} disable trigger all")
        for statement in statements:
            await connection.execute(statement)
        for table in ("audit", "audit_checkpoints"):
            await connection.execute(f"alter table {table} enable trigger all")
    finally:
        await connection.close()


async def test_an_untouched_chain_is_valid(chain: AuditChain) -> None:
    verdict = await chain.verify()
    assert (verdict.valid, verdict.records, verdict.first_bad) == (True, RECORDS, None)


_COPY = (
    "insert into audit select {seq}, at, actor_id, actor_name, actor_kind, session_id, key_id, source, action, object_kind, object_id,"
    " study_instance_uid, patient, project_id, outcome, reason, request_id, detail, hash from audit where seq = {of}"
)

TAMPERINGS: dict[str, tuple[list[str], int]] = {
    "deleting the first": (["delete from audit where seq = 1"], 1),
    "deleting one": (["delete from audit where seq = 5"], 5),
    "deleting one and closing the gap": (
        ["delete from audit where seq = 5", *(f"update audit set seq = {n - 1} where seq = {n}" for n in range(6, 13))],
        5,
    ),
    "truncating the end": (["delete from audit where seq > 9"], 10),
    "truncating the end with its checkpoints": (["delete from audit where seq > 9", "delete from audit_checkpoints"], 10),
    "emptying": (["truncate audit", "truncate audit_checkpoints"], 1),
    "inserting at the end": ([_COPY.format(seq=13, of=12)], 13),
    "inserting in the middle": (
        [
            *(f"update audit set seq = {n + 1} where seq = {n}" for n in range(12, 6, -1)),
            _COPY.format(seq=7, of=6),
        ],
        7,
    ),
    "reordering": (
        ["update audit set seq = 100 where seq = 4", "update audit set seq = 4 where seq = 8", "update audit set seq = 8 where seq = 100"],
        4,
    ),
    **{
        f"altering {column}": ([f"update audit set {column} = {value} where seq = 6"], 6)
        for column, value in {
            "at": "at + interval '1 microsecond'",
            "actor_id": "gen_random_uuid()",
            "actor_name": "'somebody else'",
            "actor_kind": "'api_key'",
            "session_id": "gen_random_uuid()",
            "key_id": "gen_random_uuid()",
            "source": "'203.0.113.9'",
            "action": "'test.undone'",
            "object_kind": "'other'",
            "object_id": "'0'",
            "study_instance_uid": "'1.2.3'",
            "patient": "'p'",
            "project_id": "gen_random_uuid()",
            "outcome": "'denied'",
            "reason": "'because'",
            "request_id": "'r'",
            "detail": "'{}'",
            "hash": "decode(repeat('00', 32), 'hex')",
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_tampering_is_found_at_its_place(services: Services, chain: AuditChain, tampering: str) -> None:
    statements, place = TAMPERINGS[tampering]
    await _tamper(services, *statements)
    verdict = await chain.verify()
    assert (verdict.valid, verdict.first_bad) == (False, place)


async def test_a_cut_end_stays_known_after_more_was_appended(services: Services, chain: AuditChain) -> None:
    await _tamper(services, "delete from audit where seq > 9", "delete from audit_checkpoints")
    await _write(services, 8)
    await chain.append_all()
    verdict = await chain.verify()
    assert not verdict.valid
    assert verdict.first_bad is not None
    assert 9 < verdict.first_bad <= RECORDS


async def test_a_forged_checkpoint_is_found(services: Services, chain: AuditChain) -> None:
    await _tamper(
        services, "insert into audit_checkpoints (seq, hash, signature) select seq, hash, hash from audit where seq = 3"
    )
    verdict = await chain.verify()
    assert (verdict.valid, verdict.first_bad, verdict.problem) == (False, 3, "forged-checkpoint")


async def test_a_record_that_came_into_the_outbox_without_the_key_is_found(
    services: Services, chain: AuditChain
) -> None:
    await _tamper(services, "insert into audit_outbox (content, seal) values ('{}', decode(repeat('00', 32), 'hex'))")
    await chain.append_all()
    verdict = await chain.verify()
    assert (verdict.valid, verdict.first_bad, verdict.problem) == (False, RECORDS + 1, "forged-record")


@pytest.mark.parametrize(
    "statement",
    ["update audit set reason = 'x' where seq = 1", "delete from audit where seq = 1", "truncate audit",
     "update audit_checkpoints set seq = 2", "delete from audit_checkpoints", "truncate audit_checkpoints"],
)  # fmt: skip
async def test_the_database_refuses_to_change_the_audit(services: Services, chain: AuditChain, statement: str) -> None:
    connection = await asyncpg.connect(services.db.url)
    try:
        await connection.execute("insert into audit_checkpoints (seq, hash, signature) values (1, '', '')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_record_exists_exactly_when_its_change_does(services: Services, chain: AuditChain) -> None:
    event = Event(type="test.failed", object_kind="thing", object_id="1")
    with pytest.raises(ZeroDivisionError):
        async with services.db.write(SYSTEM) as tx:
            await emit(tx, event)
            raise ZeroDivisionError
    await chain.append_all()
    assert (await chain.verify()).records == RECORDS


async def test_writers_and_appenders_at_once_make_one_chain_without_gaps(services: Services, chain: AuditChain) -> None:
    other = AuditChain(services.db, services.settings.data_dir)

    async def write() -> None:
        await _write(services, 10)

    async def append(appender: AuditChain) -> None:
        for _ in range(5):
            await appender.append_all()
            await appender.append_if_idle()

    await asyncio.gather(write(), append(chain), write(), append(other), write())
    await other.append_all()
    verdict = await chain.verify()
    assert (verdict.valid, verdict.records) == (True, RECORDS + 30)


async def test_another_key_sees_a_broken_chain(services: Services, chain: AuditChain) -> None:
    services.db.audit_key = bytes(32)
    verdict = await AuditChain(services.db, services.settings.data_dir).verify()
    assert (verdict.valid, verdict.first_bad) == (False, 1)


async def _lines(application: Application, headers: dict[str, str], **asked: Any) -> list[dict[str, Any]]:
    answer = await application.client.get("/api/v1/audit", params={"limit": 1000, **asked}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_the_log_answers_who_did_what_to_which_object(application: Application) -> None:
    client = application.client
    admin, owner = await application.headers("admin"), await application.headers("owner")
    made = await client.post("/api/v1/projects", json={"name": "p"}, headers=owner | {"X-Request-ID": "made-it"})
    project = made.json()["id"]
    [line] = await _lines(application, admin, object=project, action="project.created")
    assert (line["actor"], line["request_id"], line["outcome"], line["project_id"]) == (
        "owner",
        "made-it",
        "success",
        project,
    )
    assert line["source"] == "127.0.0.1"
    assert [one["seq"] for one in await _lines(application, admin, actor="owner")] == sorted(
        {one["seq"] for one in await _lines(application, admin, actor=line["actor_id"])}
    )
    later = await _lines(application, admin, after=line["seq"])
    assert all(one["seq"] > line["seq"] for one in later)
    assert {"audit.viewed"} <= {one["action"] for one in await _lines(application, admin)}
    verdict = await client.post("/api/v1/audit/verify", headers=admin)
    assert verdict.json()["valid"] is True
    await _tamper(application.services, f"update audit set actor_name = 'nobody' where seq = {line['seq']}")
    verdict = await client.post("/api/v1/audit/verify", headers=admin)
    assert (verdict.json()["valid"], verdict.json()["first_bad"]) == (False, line["seq"])


async def test_refusals_are_recorded(application: Application) -> None:
    client = application.client
    admin, owner, stranger = [await application.headers(name) for name in ("admin", "owner", "stranger")]
    project = (await client.post("/api/v1/projects", json={"name": "p"}, headers=owner)).json()["id"]
    assert (await client.get(f"/api/v1/projects/{project}/rules", headers=stranger)).status_code == 404
    [line] = await _lines(application, admin, actor="stranger", outcome="not-found")
    assert (line["object"], line["action"]) == ({"kind": "project", "id": project}, "project.manage")
    assert (await client.get("/api/v1/audit", headers=stranger)).status_code == 403
    assert (await client.post("/api/v1/audit/verify", headers=owner)).status_code == 403
    assert len(await _lines(application, admin, outcome="denied")) == 2


async def test_an_auditor_of_a_project_sees_the_records_of_that_project_alone(application: Application) -> None:
    client = application.client
    owner, auditor = await application.headers("owner"), await application.headers("auditor")
    mine, other = [
        (await client.post("/api/v1/projects", json={"name": name}, headers=owner)).json()["id"] for name in ("a", "b")
    ]
    user_id = (await client.get("/api/v1/users/me", headers=auditor)).json()["id"]
    await client.post(f"/api/v1/projects/{mine}/members", json={"user_id": user_id, "role": "auditor"}, headers=owner)
    lines = await _lines(application, auditor)
    assert {line["project_id"] for line in lines} == {mine}
    assert await _lines(application, auditor, project_id=other) == []


async def test_the_command_verifies_and_names_the_first_bad_record(services: Services, chain: AuditChain) -> None:
    environment = {"ANNOTOMY_DATABASE_URL": services.db.url, "ANNOTOMY_DATA": str(services.settings.data_dir)}

    async def verify() -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, ["audit", "verify"], env=environment)

    good = await verify()
    assert (good.exit_code, good.output) == (0, f"{RECORDS} records, all as they were written.\n")
    await _tamper(services, "update audit set reason = 'x' where seq = 7")
    bad = await verify()
    assert bad.exit_code == 1
    assert f"Record 7 of {RECORDS}: altered." in bad.output
