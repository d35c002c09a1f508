"""Records leave the database only when their month is sealed, kept as a file, and old enough - and the chain still verifies."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner, Result

from annotomy.actor import SYSTEM
from annotomy.cli import main
from annotomy.ops.audit_chain import AuditChain
from annotomy.ops.audit_errors import SegmentNotDue
from annotomy.ops.audit_segment_file import verify_file
from annotomy.ops.audit_segments import Segment, drop_due, list_segments, seal_months, segment_address
from annotomy.services import Clock, Services
from tests.audit.records import chained, lines, moment, wrote
from tests.support.application import Application

OLD = ("2015-01-10", "2015-01-20", "2015-02-05", "2015-01-31", "2015-04-01")
"""The record of 31 January came late: after one of February, into the chain and into the segment."""


@pytest.fixture
async def chain(services: Services) -> AsyncGenerator[AuditChain]:
    """Three sealed months of long ago, and records of now."""
    for day in OLD:
        await wrote(services, SYSTEM, moment(day), "test.done", object_id=day, reason="사유")
    await wrote(services, SYSTEM, services.clock.now(), "test.done")
    made = await chained(services)
    assert await seal_months(services) == 3
    await made.append_all()
    yield made


async def _segments(services: Services) -> list[Segment]:
    async with services.db.read(SYSTEM) as tx:
        return await list_segments(tx)


async def _file(services: Services, number: int, path: Path) -> Path:
    async with services.db.read(SYSTEM) as tx:
        _, address = await segment_address(tx, number)
    path.write_bytes(await services.blobs.read(address))
    return path


async def _owner(services: Services, *statements: str) -> None:
    """As who owns the database, with the triggers out of the way."""
    connection = await asyncpg.connect(services.db.url)
    try:
        for statement in statements:
            await connection.execute(
                "alter table audit disable trigger all; alter table audit_segments disable trigger all;"
                f" {statement}; alter table audit enable trigger all; alter table audit_segments enable trigger all"
            )
    finally:
        await connection.close()


async def test_each_month_that_is_over_is_sealed_once(services: Services, chain: AuditChain) -> None:
    found = await _segments(services)
    assert [(one.month, one.first_seq, one.last_seq) for one in found] == [
        ("2015-01", 1, 2),
        ("2015-02", 3, 4),
        ("2015-04", 5, 5),
    ]
    assert (found[1].first_at, found[1].last_at) == (moment("2015-01-31"), moment("2015-02-05"))
    assert all(one.keep_until - one.last_at >= timedelta(days=6 * 365) for one in found)
    assert await seal_months(services) == 0
    assert (await chain.verify()).valid


async def test_a_file_verifies_with_the_key_and_with_the_public_key_alone(
    services: Services, chain: AuditChain, tmp_path: Path
) -> None:
    path = await _file(services, 2, tmp_path / "s.jsonl.gz")
    assert verify_file(path, chain.public_key).valid
    verdict = verify_file(path, chain.public_key, chain.hash_of)
    assert (verdict.valid, verdict.chained) == (True, True)
    assert "사유" in gzip.decompress(path.read_bytes()).decode()
    assert verify_file(path, bytes(32)).problem == "forged-seal"


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], tuple[int | None, str], str]] = {
    "altered": (lambda text: [text[0], text[1].replace(b"02-05", b"02-06", 1), *text[2:]], (3, "altered"), "altered"),
    "removed": (lambda text: [text[0], *text[2:]], (4, "altered"), "altered"),
    "moved": (lambda text: [text[0], text[2], text[1], text[3]], (4, "altered"), "missing"),
    "cut": (lambda text: text[:-1], (5, "truncated"), "truncated"),
    "seal": (lambda text: [*text[:3], text[3].replace(b'"records":2', b'"records":3')], (None, "forged-seal"), "forged-seal"),
    "foreign": (lambda text: [b"{}"], (None, "not-a-segment"), "not-a-segment"),
}  # fmt: skip
"""What is done to the lines, what is found with the audit key, and what with the public key alone."""


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_a_changed_file_is_found_out(
    services: Services, chain: AuditChain, tmp_path: Path, tampering: str
) -> None:
    change, with_key, without = TAMPERINGS[tampering]
    path = await _file(services, 2, tmp_path / "s.jsonl.gz")
    whole = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(change(whole))))
    verdict = verify_file(path, chain.public_key, chain.hash_of)
    assert (verdict.valid, verdict.first_bad, verdict.problem) == (False, *with_key)
    verdict = verify_file(path, chain.public_key)
    assert (verdict.valid, verdict.problem) == (False, without)


async def test_what_is_due_is_dropped_and_the_chain_verifies_from_the_seal_on(
    services: Services, chain: AuditChain, tmp_path: Path
) -> None:
    async with services.db.write(SYSTEM) as tx:  # a checkpoint of long ago: its record goes, its signature stays
        row = await tx.fetchrow("select seq, hash from audit where seq = 2")
        assert row is not None
        signature = chain._sign(2, row["hash"])  # pyright: ignore[reportPrivateUsage]
        await tx.execute(
            "insert into audit_checkpoints (seq, hash, signature) values (2, $1, $2)", row["hash"], signature
        )
    dropped = await drop_due(services, reason="their time has passed")
    assert [one.number for one in dropped] == [1, 2, 3]
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select min(seq) from audit") == 6
    await chain.append_all()
    verdict = await chain.verify()
    assert verdict.valid, verdict
    assert verdict.records == 7, "of now: one, three seals, three drops"
    assert verify_file(await _file(services, 1, tmp_path / "f"), chain.public_key, chain.hash_of).valid
    assert await drop_due(services, reason="again") == []


async def test_tampering_after_a_drop_is_found_at_its_place(services: Services, chain: AuditChain) -> None:
    await drop_due(services, reason="r")
    await chain.append_all()
    await _owner(services, "update audit set reason = 'x' where seq = 8")
    verdict = await chain.verify()
    assert (verdict.valid, verdict.first_bad, verdict.problem) == (False, 8, "altered")
    await _owner(services, "update audit set reason = '' where seq = 8", "delete from audit where seq = 6")
    assert (await chain.verify()).first_bad == 6


async def test_a_crash_in_mid_drop_is_made_up_for(services: Services, chain: AuditChain) -> None:
    async with services.db.write(SYSTEM) as tx:
        await tx.execute("update audit_segments set dropped_at = now() where number = 1")
        await tx.execute("delete from audit where seq = 1")
    assert (await chain.verify()).valid
    await drop_due(services, reason="r")
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select min(seq) from audit") == 6


async def test_nothing_is_dropped_before_its_time(services: Services) -> None:
    recent = services.clock.now() - timedelta(days=3 * 366)
    await wrote(services, SYSTEM, recent, "test.done")
    await chained(services)
    assert await seal_months(services) == 1
    assert await drop_due(services, reason="r") == []
    [one] = await _segments(services)
    assert one.dropped_at is None


async def test_a_segment_whose_file_is_damaged_is_not_dropped(services: Services, chain: AuditChain) -> None:
    async with services.db.read(SYSTEM) as tx:
        _, address = await segment_address(tx, 1)
    await services.blobs.delete(address)
    with pytest.raises(SegmentNotDue):
        await drop_due(services, reason="r")
    assert (await chain.verify()).valid


async def test_a_tampered_month_is_not_sealed(services: Services) -> None:
    await wrote(services, SYSTEM, moment("2015-01-01"), "test.done")
    await chained(services)
    await _owner(services, "update audit set reason = 'x'")
    with pytest.raises(SegmentNotDue):
        await seal_months(services)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from audit where seq = 1",
        "update audit set reason = '' where seq = 1",
        "truncate audit",
        "delete from audit_segments",
        "truncate audit_segments",
        "update audit_segments set keep_until = now() where number = 1",
        "update audit_segments set dropped_at = now() where number = 2",
        "update audit_segments set dropped_at = now(), last_seq = 6, records = 6 where number = 1",
        "insert into audit_segments select 4, month, 6, 6, 1, first_at, now() - interval '9 years', last_hash, last_hash,"
        " content_sha256, now(), signature, blob_address, blob_size from audit_segments where number = 3",
    ],
)
async def test_the_database_refuses_every_way_around(services: Services, chain: AuditChain, statement: str) -> None:
    connection = await asyncpg.connect(services.db.url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("statement", "place", "problem"),
    [
        ("update audit_segments set keep_until = now() where number = 2", 3, "forged-seal"),
        ("delete from audit_segments where number = 1", 1, "missing"),
        ("update audit_segments set dropped_at = keep_until - interval '1 day' where number = 1", 1, "dropped-early"),
        (
            "delete from audit where seq < 5; update audit_segments set dropped_at = now() where number = 2",
            3,
            "missing",
        ),
    ],
)
async def test_tampering_with_the_seals_is_found(
    services: Services, chain: AuditChain, statement: str, place: int, problem: str
) -> None:
    if place == 3 and problem == "missing":
        statement, place = f"{statement}; delete from audit_segments where number = 1", 1
    await _owner(services, statement)
    verdict = await chain.verify()
    assert (verdict.valid, verdict.first_bad, verdict.problem) == (False, place, problem)


async def test_the_commands_seal_write_verify_and_drop(services: Services, tmp_path: Path) -> None:
    for day in OLD:
        await wrote(services, SYSTEM, moment(day), "test.done")
    environment = {"ANNOTOMY_DATABASE_URL": services.db.url, "ANNOTOMY_DATA": str(services.settings.data_dir)}

    async def run(*words: str, env: dict[str, str] = environment) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, ["audit", *words], env=env)

    assert (await run("seal")).output.endswith("3 segments sealed.\n")
    listed = await run("segments", "--write", str(tmp_path / "out"))
    public_key = listed.output.split()[2]
    path = tmp_path / "out" / "audit-0001-2015-01.jsonl.gz"
    whole = await run("verify", "--segment", str(path))
    assert (whole.exit_code, whole.output) == (0, "Segment 1 (2015-01): records 1 to 2, each in the hash chain.\n")
    elsewhere = {"ANNOTOMY_DATA": str(tmp_path / "none"), "ANNOTOMY_AUDIT_KEY": ""}
    assert (await run("verify", "--segment", str(path), "--public-key", public_key, env=elsewhere)).exit_code == 0
    assert (await run("verify", "--segment", str(path), env=elsewhere)).exit_code == 1
    assert not (tmp_path / "none").exists(), "no key is made for looking"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"2015-01-10", b"2015-01-11", 1)))
    bad = await run("verify", "--segment", str(path))
    assert (bad.exit_code, "Record 1: altered." in bad.output) == (1, True)
    assert "Segment 3 (2015-04): 1 records dropped." in (await run("drop", "--reason", "old")).output
    assert (await run("drop", "--reason", "old")).output == "Nothing is due.\n"
    assert (await run("verify")).exit_code == 0


class _NextYear(Clock):
    def now(self) -> datetime:
        return super().now() + timedelta(days=366)


async def test_auditors_take_a_segment_with_them_for_a_reason(application: Application, tmp_path: Path) -> None:
    client, now = application.client, application.services
    admin, owner = await application.headers("admin"), await application.headers("owner")
    later = Services(now.settings, now.db, now.blobs, now.runners, _NextYear())
    assert await seal_months(later) == 1
    [one] = (await client.get("/api/v1/audit/segments", headers=admin)).json()["items"]
    assert (one["number"], one["first_seq"], one["dropped_at"]) == (1, 1, None)
    assert (await client.get("/api/v1/audit/segments", headers=owner)).status_code == 403
    assert (await client.get("/api/v1/audit/segments/2/file", headers=admin)).status_code == 404
    address = "/api/v1/audit/segments/1/file"
    assert (await client.get(address, headers=owner)).status_code == 403
    refused = await client.get(address, headers=admin)
    assert refused.json()["type"] == "urn:annotomy:problem:reason-required"
    answer = await client.get(address, headers=admin | {"Annotomy-Reason": "inspection"})
    path = tmp_path / "s"
    path.write_bytes(answer.content)
    assert verify_file(path, AuditChain(now.db, now.settings.data_dir).public_key).valid
    [line] = await lines(application, admin, action="audit.exported", outcome="success")
    assert (line["reason"], line["object"]["kind"]) == ("inspection", "audit_segment")
