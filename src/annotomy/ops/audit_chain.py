"""The hash chain of the audit: what waits in the outbox is appended in one order, by one process at a time, after its commit.

Writers never wait for the chain (docs/decisions/0008). Each record's hash is an HMAC over its place, its canonical form and
the hash before it; every so often the head is signed. Heads are kept in the database and, since whoever rewrites the
database could cut the end off, in the data folder as well. `verify` names the first record that is not as it was written.
"""

import asyncio
import hmac
import os
import time
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from annotomy.actor import SYSTEM
from annotomy.audit import Entry, Record, derived_key, record_of, seal, sync_folder
from annotomy.db.engine import Database, ReadTx
from annotomy.ops.audit_segment_file import Seal, is_signed

log = structlog.get_logger(__name__)

APPEND_LOCK = 0x61756469  # "audi": one appender at a time in this database
BATCH_RECORDS = 1000
"""One transaction of the appender; more wait for the next."""
CHECKPOINT_RECORDS = 1000
CHECKPOINT_S = 300.0
"""A head is signed after this many records, or when this long has passed since the last one."""
VERIFY_ROWS = 5000
"""Rows that verification holds in memory at once."""
GENESIS = b"\0" * 32
SEAL_BROKEN = "audit.seal_broken"

_COLUMNS = ", ".join(Record.__struct_fields__)


class Head(msgspec.Struct, frozen=True):
    """The end of the chain at some moment, signed."""

    seq: int
    hash: bytes
    signature: bytes


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    valid: bool
    records: int
    first_bad: int | None = None
    """The place of the first record that is missing, altered, moved or was never written by the server."""
    problem: str | None = None
    """missing, altered, truncated, forged-checkpoint, forged-record, forged-seal or dropped-early."""


def chain_hash(key: bytes, seq: int, record: Record, previous: bytes) -> bytes:
    content = previous + seq.to_bytes(8, "big") + record.canonical()
    return hmac.digest(derived_key(key, b"chain"), content, "sha256")


def signing_key(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derived_key(key, b"checkpoint"))


def record_in(row: Any) -> Record:
    record = Record(**{name: row[name] for name in Record.__struct_fields__})
    return msgspec.structs.replace(record, at=record.at.astimezone(UTC))


def seal_of(row: Any) -> Seal:
    times = {name: row[name].astimezone(UTC) for name in ("first_at", "last_at", "keep_until")}
    return Seal(**{name: row[name] for name in Seal.__struct_fields__} | times)


class AuditChain:
    """Appends and verifies; one for each process, all of them on the same chain."""

    def __init__(self, db: Database, data_dir: Path) -> None:
        assert db.audit_key is not None
        self._db = db
        self._key = db.audit_key
        self._signing = signing_key(self._key)
        self._folder = data_dir / "audit"
        self._last_checkpoint = time.monotonic()

    # -- appending ----------------------------------------------------------------------------------------------------

    async def append_all(self) -> None:
        """Appends what was committed before this call; waits for another appender."""
        while await self._append(wait=True) == BATCH_RECORDS:
            pass

    async def append_if_idle(self) -> None:
        """As `append_all`, but leaves it to another process that is at it."""
        async with self._db.read(SYSTEM) as tx:
            waiting = await tx.fetchval("select exists (select from audit_outbox)")
        if waiting:
            while await self._append(wait=False) == BATCH_RECORDS:
                pass

    async def _append(self, *, wait: bool) -> int:
        async with self._db.session() as connection:
            # A session lock: it also covers the head in the data folder, which is written after the commit.
            if wait:
                await connection.execute("select pg_advisory_lock($1)", APPEND_LOCK)
            elif not await connection.fetchval("select pg_try_advisory_lock($1)", APPEND_LOCK):
                return 0
            try:
                await self._keep_contradicted_head(connection)
                async with connection.transaction():
                    count, head = await self._append_batch(connection)
                if head is not None:
                    await asyncio.to_thread(self._write_head, "head", head)
                return count
            finally:
                await connection.execute("select pg_advisory_unlock($1)", APPEND_LOCK)

    async def _append_batch(self, connection: Any) -> tuple[int, Head | None]:
        last = await connection.fetchrow("select seq, hash from audit order by seq desc limit 1")
        start, previous = (last["seq"], last["hash"]) if last else (0, GENESIS)
        waiting = await connection.fetch(
            "delete from audit_outbox where id in (select id from audit_outbox order by id limit $1)"
            " returning id, content, seal",
            BATCH_RECORDS,
        )
        if not waiting:
            return 0, None
        rows: list[tuple[Any, ...]] = []
        seq = start
        for one in sorted(waiting, key=lambda row: row["id"]):
            record = self._opened(one["content"], one["seal"])
            seq += 1
            previous = self.hash_of(seq, record, previous)
            rows.append((seq, *(getattr(record, name) for name in Record.__struct_fields__), previous))
        places = ", ".join(f"${n}" for n in range(1, len(rows[0]) + 1))
        await connection.executemany(f"insert into audit (seq, {_COLUMNS}, hash) values ({places})", rows)
        head = Head(seq, previous, self._sign(seq, previous))
        due = time.monotonic() - self._last_checkpoint > CHECKPOINT_S
        if due or seq // CHECKPOINT_RECORDS > start // CHECKPOINT_RECORDS:
            self._last_checkpoint = time.monotonic()
            await connection.execute(
                "insert into audit_checkpoints (seq, hash, signature) values ($1, $2, $3)",
                seq, previous, head.signature,
            )  # fmt: skip
        return len(rows), head

    def _opened(self, content: str, given: bytes) -> Record:
        """The record, or one that tells of a row which was not sealed with our key."""
        if hmac.compare_digest(given, seal(self._key, content.encode())):
            return msgspec.json.decode(content, type=Record)
        log.error("audit.seal_broken")
        entry = Entry(action=SEAL_BROKEN, object_kind="audit", object_id="", outcome="failure")
        return record_of(SYSTEM, entry)

    def hash_of(self, seq: int, record: Record, previous: bytes) -> bytes:
        return chain_hash(self._key, seq, record, previous)

    @property
    def public_key(self) -> bytes:
        return self._signing.public_key().public_bytes_raw()

    def sign_seal(self, seal: Seal) -> bytes:
        return self._signing.sign(seal.message())

    def _sign(self, seq: int, chain_hash: bytes) -> bytes:
        return self._signing.sign(b"annotomy audit head" + seq.to_bytes(8, "big") + chain_hash)

    # -- heads in the data folder -------------------------------------------------------------------------------------

    async def _keep_contradicted_head(self, connection: Any) -> None:
        """`head` is the newest head. One that the database does not know any more is evidence: it moves to `heads`."""
        for known in await asyncio.to_thread(self._read_heads, "head"):
            stored = await connection.fetchval("select hash from audit where seq = $1", known.seq)
            if stored != known.hash:
                log.error("audit.chain_contradicts_head", seq=known.seq)
                kept = await asyncio.to_thread(self._read_heads, "heads")
                if known not in kept:
                    await asyncio.to_thread(self._write_head, "heads", *kept, known)

    def _write_head(self, name: str, *heads: Head) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._folder / f"{name}.new"
        with temporary.open("wb") as file:
            file.writelines(msgspec.json.encode(head) + b"\n" for head in heads)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / name)
        sync_folder(self._folder)

    def _read_heads(self, name: str) -> list[Head]:
        path = self._folder / name
        if not path.exists():
            return []
        return [msgspec.json.decode(line, type=Head) for line in path.read_bytes().splitlines() if line]

    # -- verifying ----------------------------------------------------------------------------------------------------

    async def verify(self) -> Verdict:
        """Reads the whole chain. The verdict names the first place where it is not what the server wrote."""
        known = [
            *await asyncio.to_thread(self._read_heads, "head"),
            *await asyncio.to_thread(self._read_heads, "heads"),
        ]
        async with self._db.read(SYSTEM) as tx:
            checkpoints = await tx.fetch("select seq, hash, signature from audit_checkpoints order by seq")
            heads = known + [Head(row["seq"], row["hash"], row["signature"]) for row in checkpoints]
            segments = await tx.fetch("select * from audit_segments order by number")
            dropped = [row for row in segments if row["dropped_at"] is not None]
            start, previous = (dropped[-1]["last_seq"], dropped[-1]["last_hash"]) if dropped else (0, GENESIS)
            records = await tx.fetchval("select count(*) from audit where seq > $1", start)
            wanted = {head.seq for head in heads} | {row["last_seq"] for row in segments}
            hashes, bad = await self._walk(tx, wanted, start, previous)
        hashes |= {row["last_seq"]: row["last_hash"] for row in dropped}
        found = [] if bad is None else [bad]
        found += self._bad_segments(segments, {} if bad else hashes)
        for head in heads:
            if not self._is_signed(head):
                found.append((head.seq, "forged-checkpoint"))
            elif head.seq < start and head.seq not in hashes:
                continue  # its record is in the file of a segment alone; the seals lead from there to here
            elif bad is None and hashes.get(head.seq) != head.hash:
                # An unbroken walk counts without gaps, so that the number of records tells the last place.
                last = start + records
                found.append((last + 1, "truncated") if head.seq > last else (head.seq, "altered"))
        if not found:
            return Verdict(valid=True, records=records)
        first, problem = min(found)
        return Verdict(valid=False, records=records, first_bad=first, problem=problem)

    def _bad_segments(self, rows: Iterable[Any], hashes: dict[int, bytes]) -> list[tuple[int, str]]:
        """Seals that are not ours, do not follow one another, or do not fit the chain where it was walked."""
        found: list[tuple[int, str]] = []
        number, last, previous = 0, 0, GENESIS
        for row in rows:
            seal = seal_of(row)
            if not is_signed(seal, row["signature"], self.public_key):
                found.append((seal.first_seq, "forged-seal"))
            elif (seal.number, seal.first_seq, seal.previous_hash) != (number + 1, last + 1, previous):
                found.append((last + 1, "missing"))
            elif hashes and hashes.get(seal.last_seq) != seal.last_hash:
                found.append((seal.last_seq, "altered"))
            elif row["dropped_at"] is not None and row["dropped_at"] < seal.keep_until:
                found.append((seal.first_seq, "dropped-early"))
            number, last, previous = seal.number, seal.last_seq, seal.last_hash
        return found

    async def _walk(
        self, tx: ReadTx, wanted: set[int], last: int, previous: bytes
    ) -> tuple[dict[int, bytes], tuple[int, str] | None]:
        """The hashes at the wanted places, and the first record behind `last` that is not as it was written."""
        hashes: dict[int, bytes] = {}
        while True:
            rows = await tx.fetch(
                f"select seq, {_COLUMNS}, hash from audit where seq > $1 order by seq limit {VERIFY_ROWS}", last
            )
            if not rows:
                return hashes, None
            bad = await asyncio.to_thread(self.check, rows, last, previous)
            if bad is not None:
                return hashes, bad
            hashes |= {row["seq"]: row["hash"] for row in rows if row["seq"] in wanted}
            last, previous = rows[-1]["seq"], rows[-1]["hash"]

    def check(self, rows: Iterable[Any], last: int, previous: bytes) -> tuple[int, str] | None:
        """The first of these rows, which follow the place `last`, that is not as it was written."""
        for row in rows:
            if row["seq"] != last + 1:
                return last + 1, "missing"
            record = record_in(row)
            if not hmac.compare_digest(row["hash"], self.hash_of(row["seq"], record, previous)):
                return row["seq"], "altered"
            if record.action == SEAL_BROKEN:
                return row["seq"], "forged-record"
            last, previous = row["seq"], row["hash"]
        return None

    def _is_signed(self, head: Head) -> bool:
        try:
            message = b"annotomy audit head" + head.seq.to_bytes(8, "big") + head.hash
            self._signing.public_key().verify(head.signature, message)
        except InvalidSignature:
            return False
        return True
