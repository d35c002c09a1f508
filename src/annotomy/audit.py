"""Audit records: who did what to which object, from where, and with what outcome. Written in the transaction of the change.

A record is one canonical JSON text. It is sealed with the installation's audit key when it is written to the outbox, so that
nobody who only reaches the database can add one, and moved into the hash chain soon after (ops/audit_chain.py). The key
lies outside of the database. docs/explanation/audit.md says what the chain proves and what it does not.
"""

import asyncio
import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.origin import ORIGIN

KEY_BYTES = 32
MAX_TEXT = 256
"""Characters of each text that a client can choose: a record names things, it does not carry them."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit. Texts are never patient data; `patient` is a keyed pseudonym."""

    at: datetime
    actor_id: UUID
    actor_name: str
    actor_kind: str
    session_id: UUID | None
    key_id: UUID | None
    """The API key, or the share link (`actor_kind` says which), that it was done with."""
    source: str
    action: str
    object_kind: str
    object_id: str
    study_instance_uid: str
    """The study that the object is or hangs on, or empty."""
    patient: str
    project_id: UUID | None
    outcome: str
    reason: str
    request_id: str
    detail: str
    """Canonical JSON of identifiers and numbers."""

    def canonical(self) -> bytes:
        return msgspec.json.encode(self)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation says; the rest of the record follows from who asks and from where."""

    action: str
    object_kind: str
    object_id: str
    project_id: UUID | None = None
    study_instance_uid: str | None = None
    """What the object is or hangs on; of whose patient the pseudonym is."""
    outcome: str = "success"
    reason: str = ""
    detail: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


def record_of(actor: Actor, entry: Entry, *, patient: str = "") -> Record:
    origin = ORIGIN.get()
    return Record(
        at=datetime.now(UTC),
        actor_id=actor.user_id,
        actor_name=_text(actor.name),
        actor_kind=actor.kind,
        session_id=actor.session_id,
        key_id=actor.key_id or actor.share_link_id,
        source=_text(origin.source),
        action=entry.action,
        object_kind=entry.object_kind,
        object_id=_text(entry.object_id),
        study_instance_uid=_text(entry.study_instance_uid or ""),
        patient=patient,
        project_id=entry.project_id,
        outcome=entry.outcome,
        reason=_text(entry.reason or origin.reason),
        request_id=_text(origin.request_id),
        detail=msgspec.json.encode(entry.detail, order="deterministic", enc_hook=str).decode().replace("\\u0000", ""),
    )


async def record(tx: WriteTx, entry: Entry) -> None:
    """In the caller's transaction: the record exists exactly when the change does."""
    await record_all(tx, [entry])


async def record_all(tx: WriteTx, entries: Sequence[Entry]) -> None:
    """As `record`, of many in the same number of statements."""
    key = _key(tx)
    patients = await pseudonyms(tx, key, [(one.study_instance_uid, one.project_id) for one in entries])
    await write_records(
        tx,
        [
            record_of(tx.actor, one, patient=patients.get((one.study_instance_uid, one.project_id), ""))
            for one in entries
        ],
    )


async def write_records(tx: WriteTx, records: Sequence[Record]) -> None:
    key = _key(tx)
    contents = [one.canonical() for one in records]
    await tx.execute(
        "insert into audit_outbox (content, seal) select * from unnest($1::text[], $2::bytea[])",
        [content.decode() for content in contents], [seal(key, content) for content in contents],
    )  # fmt: skip


Subject = tuple[str | None, UUID | None]
"""A study's UID, and the project that the record is of."""


async def pseudonyms(tx: ReadTx, key: bytes, subjects: Iterable[Subject]) -> dict[Subject, str]:
    """For each study a pseudonym of its patient: the same for all studies of a Patient ID, and only the key tells which.

    Also of studies that the actor does not see: they may just have lost sight of one. But in the record of a project, which
    the project's auditors read, of no study that others hold.
    """
    named = [one for one in dict.fromkeys(subjects) if one[0] is not None]
    if not named:
        return {}
    rows = await tx.fetch(
        "select study_instance_uid, project_id, patient_id from patients_of($1, $2)",
        [uid for uid, _ in named], [project_id for _, project_id in named],
    )  # fmt: skip
    patient_key = derived_key(key, b"patient")
    return {
        (row["study_instance_uid"], row["project_id"]): hmac.digest(
            patient_key, row["patient_id"].encode(), "sha256"
        ).hex()[:32]
        for row in rows
    }


def seal(key: bytes, content: bytes) -> bytes:
    return hmac.digest(derived_key(key, b"seal"), content, "sha256")


def derived_key(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"annotomy audit " + purpose, "sha256")


def _key(tx: WriteTx) -> bytes:
    if tx.audit_key is None:
        raise RuntimeError("this database was opened without the audit key, so nothing that is audited can be written")
    return tx.audit_key


def _text(value: str) -> str:
    return value.replace("\0", "")[:MAX_TEXT]


# -- the key ----------------------------------------------------------------------------------------------------------


async def load_audit_key(data_dir: Path, configured: str | None) -> bytes:
    """The configured key, else the one in the data folder, which is made at the first start. Raises ValueError."""
    if configured is not None:
        try:
            key = base64.b64decode(configured, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"ANNOTOMY_AUDIT_KEY takes {KEY_BYTES} bytes in base64")
        return key
    return await asyncio.to_thread(_load_or_make, data_dir / "keys" / "audit.key")


def _load_or_make(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, path)  # fails when another process was first: then its key is the key
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        sync_folder(path.parent)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path.name} in the data folder's keys does not hold {KEY_BYTES} bytes")
    return key


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
