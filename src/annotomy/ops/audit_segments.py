"""Retention of the audit: the log is cut into months, each sealed and kept as a file; only then, and only after its time,
may its records leave the database.

A segment ends before the first record of a later month, in the order of the chain; a record that came late is in the next
one. The database itself refuses to drop what is not due (`guard_audit_segment`).
"""

import asyncio
import gzip
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import structlog

from annotomy.actor import SYSTEM
from annotomy.audit import Entry, record
from annotomy.db.engine import ReadTx
from annotomy.errors import NotFound
from annotomy.ops.audit_chain import GENESIS, AuditChain, record_in, seal_of
from annotomy.ops.audit_errors import SegmentNotDue
from annotomy.ops.audit_segment_file import FORMAT, Head, Seal, SealedLine, SignedSeal, line_bytes, verify_file
from annotomy.services import Services

log = structlog.get_logger(__name__)

BATCH_ROWS = 5000
"""Rows in memory at once, and of one deleting transaction."""
LONGEST_YEAR = timedelta(days=366)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    month: str
    first_seq: int
    last_seq: int
    records: int
    first_at: datetime
    last_at: datetime
    sealed_at: datetime
    keep_until: datetime
    dropped_at: datetime | None
    """Since then the records are in the file alone."""
    bytes: int


async def list_segments(tx: ReadTx) -> list[Segment]:
    return [_segment(row) for row in await tx.fetch("select * from audit_segments order by number")]


async def segment_address(tx: ReadTx, number: int) -> tuple[Segment, str]:
    row = await tx.fetchrow("select * from audit_segments where number = $1", number)
    if row is None:
        raise NotFound("There is no such segment.")
    return _segment(row), row["blob_address"]


# -- sealing ----------------------------------------------------------------------------------------------------------


async def seal_months(services: Services) -> int:
    """Seals every month that is over and has records. Bytes first, then the row. Returns how many segments were made."""
    chain = AuditChain(services.db, services.settings.data_dir)
    await chain.append_all()
    made = 0
    while await _seal_next(services, chain):
        made += 1
    return made


async def _seal_next(services: Services, chain: AuditChain) -> bool:
    this_month = services.clock.now().astimezone(UTC).strftime("%Y-%m")
    async with services.db.read(SYSTEM) as tx:
        last = await tx.fetchrow(
            "select number, month, last_seq, last_hash from audit_segments order by number desc limit 1"
        )
        number, first_seq = (last["number"] + 1, last["last_seq"] + 1) if last else (1, 1)
        first = await tx.fetchrow("select at from audit where seq = $1", first_seq)
        if first is None:
            return False
        month = first["at"].astimezone(UTC).strftime("%Y-%m")
        if last is not None:
            month = max(month, _following(last["month"]))
        if month >= this_month:
            return False
        end = datetime.strptime(_following(month), "%Y-%m").replace(tzinfo=UTC)
        last_seq = await tx.fetchval(
            "select coalesce((select min(seq) - 1 from audit where seq > $1 and at >= $2), (select max(seq) from audit))",
            first_seq, end,
        )  # fmt: skip
    previous = last["last_hash"] if last else GENESIS
    path = services.settings.spool_dir / f"audit-{secrets.token_hex(8)}"
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    try:
        seal, signature = await _write(services, chain, path, number, month, first_seq, last_seq, previous)
        blob = await services.blobs.put_file(path)
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)
    values = {name: getattr(seal, name) for name in Seal.__struct_fields__}
    values |= {"signature": signature, "blob_address": blob.address, "blob_size": blob.size}
    async with services.db.write(SYSTEM) as tx:
        await tx.execute(
            f"insert into audit_segments ({', '.join(values)}) values ({', '.join(f'${n + 1}' for n in range(len(values)))})",
            *values.values(),
        )
        detail = {"month": month, "first_seq": first_seq, "last_seq": last_seq, "file": blob.address}
        await record(
            tx, Entry(action="audit.sealed", object_kind="audit_segment", object_id=str(number), detail=detail)
        )
    log.info("audit.sealed", month=month, records=seal.records)
    return True


async def _write(
    services: Services,
    chain: AuditChain,
    path: Path,
    number: int,
    month: str,
    first_seq: int,
    last_seq: int,
    previous: bytes,
) -> tuple[Seal, bytes]:
    """The file, which is checked against the chain as it is written: what was tampered with is not sealed."""
    digest, last, before = hashlib.sha256(), first_seq - 1, previous
    first_at, last_at = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(msgspec.json.encode(Head(FORMAT, number, previous, chain.public_key)) + b"\n")
        while last < last_seq:
            async with services.db.read(SYSTEM) as tx:
                rows = await tx.fetch(
                    f"select * from audit where seq > $1 and seq <= $2 order by seq limit {BATCH_ROWS}", last, last_seq
                )
            bad = (last + 1, "missing") if not rows else await asyncio.to_thread(chain.check, rows, last, before)
            if bad is not None:
                raise SegmentNotDue(f"Record {bad[0]} is {bad[1]}: this part of the audit is not sealed.")
            body = await asyncio.to_thread(_encode, rows)
            digest.update(body)
            await asyncio.to_thread(file.write, body)
            first_at = min(first_at, *(row["at"] for row in rows))
            last_at = max(last_at, *(row["at"] for row in rows))
            last, before = rows[-1]["seq"], rows[-1]["hash"]
        seal = Seal(
            number=number,
            month=month,
            first_seq=first_seq,
            last_seq=last_seq,
            records=last_seq - first_seq + 1,
            first_at=first_at.astimezone(UTC),
            last_at=last_at.astimezone(UTC),
            previous_hash=previous,
            last_hash=before,
            content_sha256=digest.digest(),
            keep_until=last_at.astimezone(UTC) + services.settings.audit.retention_years * LONGEST_YEAR,
        )
        signature = chain.sign_seal(seal)
        file.write(msgspec.json.encode(SignedSeal(seal, signature)) + b"\n")
    return seal, signature


def _encode(rows: list[Any]) -> bytes:
    return b"".join(line_bytes(SealedLine(row["seq"], row["hash"], record_in(row))) for row in rows)


def _following(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02}"


# -- dropping ---------------------------------------------------------------------------------------------------------


async def drop_due(services: Services, *, reason: str) -> list[Segment]:
    """Takes the records of every due segment out of the database, the oldest first, after reading its file through.

    Raises SegmentNotDue where a file does not verify. May be repeated: what a crash left of dropped segments goes.
    """
    dropped: list[Segment] = []
    while (segment := await _drop_next(services, reason)) is not None:
        dropped.append(segment)
    async with services.db.read(SYSTEM) as tx:
        upto = await tx.fetchval("select max(last_seq) from audit_segments where dropped_at is not null")
    while upto is not None:
        async with services.db.write(SYSTEM) as tx:
            gone = await tx.execute(
                f"delete from audit where seq in (select seq from audit where seq <= $1 order by seq limit {BATCH_ROWS})",
                upto,
            )
        if gone == "DELETE 0":
            break
    return dropped


async def _drop_next(services: Services, reason: str) -> Segment | None:
    async with services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow("select * from audit_segments where dropped_at is null order by number limit 1")
    if row is None or row["keep_until"] > services.clock.now():
        return None
    chain = AuditChain(services.db, services.settings.data_dir)
    path = services.settings.spool_dir / f"audit-{secrets.token_hex(8)}"
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            async for piece in services.blobs.stream(row["blob_address"]):
                await asyncio.to_thread(file.write, piece)
        verdict = await asyncio.to_thread(verify_file, path, chain.public_key, chain.hash_of)
    except KeyError:
        raise SegmentNotDue(f"The file of segment {row['number']} is not there.") from None
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)
    if not verdict.valid or verdict.seal != seal_of(row):
        raise SegmentNotDue(f"The file of segment {row['number']} does not verify.")
    async with services.db.write(SYSTEM) as tx:
        await tx.execute("update audit_segments set dropped_at = now() where number = $1", row["number"])
        detail = {"month": row["month"], "first_seq": row["first_seq"], "last_seq": row["last_seq"]}
        await record(
            tx,
            Entry(
                action="audit.dropped",
                object_kind="audit_segment",
                object_id=str(row["number"]),
                reason=reason,
                detail=detail,
            ),
        )
        dropped = await tx.fetchrow("select * from audit_segments where number = $1", row["number"])
    return _segment(dropped)


def _segment(row: Any) -> Segment:
    named = {name: row[name] for name in Segment.__struct_fields__ if name != "bytes"}
    return Segment(**named, bytes=row["blob_size"])
