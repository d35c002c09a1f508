"""How much a person and a project may bring in by uploads: bytes stored, bytes in flight, open uploads.

Stored is what uploads have added to the archive so far; in flight is what open uploads may still add, told or unpacked.
Both together stay within the stored limit. Whoever raises one of them holds the subject's lock until the commit, so that
uploads that are made at once cannot pass a limit together.
"""

from collections.abc import AsyncIterator
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.archive.store import Incoming, StoreOutcome
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import Permission, require_global
from annotomy.services import Services
from annotomy.settings import LimitSettings
from annotomy.uploads.errors import QuotaExceeded

CLAIM_BYTES: Final = 64 << 20
"""An archive claims what it unpacks to in steps of this, each a short transaction."""

Subject = Literal["user", "project"]
SUBJECTS: Final[tuple[Subject, ...]] = ("user", "project")
"""In the order in which they are locked: the same for everyone, so that nobody waits in a circle."""
_COLUMN: Final = {"user": "owner_id", "project": "project_id"}
_OPEN: Final = "state in ('receiving', 'verifying', 'ingesting')"


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits; null is none. In what is set for one user or project, null is the installation's default, 0 lifts it."""

    stored_bytes: int | None = None
    in_flight_bytes: int | None = None
    open_uploads: int | None = None


class Usage(msgspec.Struct, frozen=True):
    stored_bytes: int
    in_flight_bytes: int
    open_uploads: int
    quota: Quota
    """What holds now."""


async def usage_of(tx: ReadTx, limits: LimitSettings, subject: Subject, subject_id: UUID) -> Usage:
    # A final upload's own bytes are those of its parts, which are open until it is stored.
    row = await tx.fetchrow(
        f"select coalesce(sum(case when concat = 'final' then claimed_bytes - length else claimed_bytes end), 0)::bigint"
        f" as in_flight,"
        f" count(*) as open from uploads where {_COLUMN[subject]} = $1 and {_OPEN}",
        subject_id,
    )
    stored = await tx.fetchval(
        "select stored_bytes from upload_usage where subject = $1 and subject_id = $2", subject, subject_id
    )
    assert row is not None, "an aggregate has a row"
    return Usage(stored or 0, row["in_flight"], row["open"], await _quota(tx, limits, subject, subject_id))


async def require_quota(
    tx: WriteTx, limits: LimitSettings, owner_id: UUID, project_id: UUID, more: int, *, opens: int
) -> None:
    """Before `more` bytes are claimed and `opens` uploads made in this transaction. Raises QuotaExceeded."""
    for subject, subject_id in zip(SUBJECTS, (owner_id, project_id), strict=True):
        await tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"upload quota {subject_id}")
        usage = await usage_of(tx, limits, subject, subject_id)
        quota = usage.quota
        for name, used, added, limit in (
            ("stored_bytes", usage.stored_bytes + usage.in_flight_bytes, more, quota.stored_bytes),
            ("in_flight_bytes", usage.in_flight_bytes, more, quota.in_flight_bytes),
            ("open_uploads", usage.open_uploads, opens, quota.open_uploads),
        ):
            if limit is not None and added > 0 and used + added > limit:
                raise QuotaExceeded(
                    f"The quota of the {subject} is used up.", quota=name, subject=subject, limit=limit, used=used
                )


async def within_quota(
    services: Services, actor: Actor, upload_id: UUID, source: AsyncIterator[Incoming], refused: list[StoreOutcome]
) -> AsyncIterator[Incoming]:
    """The files for which there is room; the others are told in `refused`. An archive claims as it unpacks."""
    unpacked = 0
    async with services.db.read(actor) as tx:
        claimed = await tx.fetchval("select claimed_bytes from uploads where id = $1", upload_id) or 0
    async for file in source:
        size = len(file.data) if file.data is not None else file.path.stat().st_size if file.path else 0
        if unpacked + size > claimed:
            try:
                claimed = await _claim(services, actor, upload_id, unpacked + size)
            except QuotaExceeded as problem:
                refused.append(StoreOutcome(file.name, "refused", problem=problem))
                continue
        unpacked += size
        yield file


async def _claim(services: Services, actor: Actor, upload_id: UUID, total: int) -> int:
    """What is claimed now: `total`, or a step more where there is room for it."""
    try:
        await _raise_claim(services, actor, upload_id, total + CLAIM_BYTES)
    except QuotaExceeded:
        await _raise_claim(services, actor, upload_id, total)
        return total
    return total + CLAIM_BYTES


async def _raise_claim(services: Services, actor: Actor, upload_id: UUID, wanted: int) -> None:
    async with services.db.write(actor) as tx:
        row = await tx.fetchrow("select owner_id, project_id, claimed_bytes from uploads where id = $1", upload_id)
        if row is None:
            return
        more = wanted - row["claimed_bytes"]
        await require_quota(tx, services.settings.limits, row["owner_id"], row["project_id"], more, opens=0)
        await tx.execute("update uploads set claimed_bytes = $2 where id = $1", upload_id, wanted)


async def book_stored(tx: WriteTx, owner_id: UUID, project_id: UUID, stored_bytes: int) -> None:
    """In the transaction that ends the upload, and with it what it had claimed."""
    if stored_bytes:
        await tx.executemany(
            "insert into upload_usage (subject, subject_id, stored_bytes) values ($1, $2, $3)"
            " on conflict (subject, subject_id) do update set stored_bytes = upload_usage.stored_bytes + excluded.stored_bytes",
            [("user", owner_id, stored_bytes), ("project", project_id, stored_bytes)],
        )


async def set_quota(tx: WriteTx, actor: Actor, subject: Subject, subject_id: UUID, quota: Quota) -> None:
    """Raises Forbidden to who is no administrator, NotFound for who is nobody."""
    await require_global(tx, actor, Permission.SYSTEM_MANAGE)
    if not await tx.fetchval(f"select exists (select from {subject}s where id = $1)", subject_id):
        raise NotFound(f"There is no such {subject}.")
    await tx.execute(
        "insert into upload_quotas (subject, subject_id, stored_bytes, in_flight_bytes, open_uploads, updated_by)"
        " values ($1, $2, $3, $4, $5, $6) on conflict (subject, subject_id) do update set stored_bytes = excluded.stored_bytes,"
        " in_flight_bytes = excluded.in_flight_bytes, open_uploads = excluded.open_uploads, updated_by = excluded.updated_by,"
        " updated_at = now()",
        subject, subject_id, *msgspec.structs.astuple(quota), actor.user_id,
    )  # fmt: skip
    data: dict[str, Any] = msgspec.to_builtins(quota)
    await emit(tx, Event(type="quota.changed", object_kind=subject, object_id=str(subject_id), data=data))


async def _quota(tx: ReadTx, limits: LimitSettings, subject: Subject, subject_id: UUID) -> Quota:
    if subject == "user":
        default = (limits.user_stored_bytes, limits.user_in_flight_bytes, limits.user_open_uploads)
    else:
        default = (limits.project_stored_bytes, limits.project_in_flight_bytes, limits.project_open_uploads)
    own = await tx.fetchrow(
        "select stored_bytes, in_flight_bytes, open_uploads from upload_quotas where subject = $1 and subject_id = $2",
        subject, subject_id,
    ) or (None, None, None)  # fmt: skip
    chosen = [usual if told is None else told for told, usual in zip(own, default, strict=True)]
    return Quota(*(one or None for one in chosen))
