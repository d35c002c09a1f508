"""How much a person and a project may bring in: bytes stored, bytes in flight, open uploads.

Stored is what they have added to the archive by uploads, STOW-RS and C-STORE and what is still there: the database counts
each instance as it comes and goes. In flight is what open uploads (feature uploads) may still add, told or unpacked.
Both together stay within the stored limit. Whoever raises one of them holds the subject's lock until the commit, so that
uploads that are made at once cannot pass a limit together.
"""

from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.archive.errors import QuotaExceeded
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import Permission, require_global
from annotomy.settings import LimitSettings

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
        "select coalesce(sum(greatest(0, claimed_bytes - stored_bytes - case when concat = 'final' then length else 0 end)), 0)"
        "::bigint as in_flight,"
        f" count(*) as open from uploads where {_COLUMN[subject]} = $1 and {_OPEN}",
        subject_id,
    )
    stored = await tx.fetchval(
        "select coalesce((select stored_bytes from upload_usage where subject = $1 and subject_id = $2), 0)"
        " + coalesce((select sum(bytes) from upload_usage_changes where subject = $1 and subject_id = $2), 0)::bigint",
        subject,
        subject_id,
    )
    assert row is not None, "an aggregate has a row"
    return Usage(stored, row["in_flight"], row["open"], await _quota(tx, limits, subject, subject_id))


async def require_quota(
    tx: WriteTx, limits: LimitSettings, owner_id: UUID, project_id: UUID, more: int, *, opens: int
) -> None:
    """Before `more` bytes are claimed and `opens` uploads made in this transaction. Raises QuotaExceeded."""
    for subject, subject_id in zip(SUBJECTS, (owner_id, project_id), strict=True):
        await _lock(tx, subject_id)
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


async def refuse_beyond(
    tx: WriteTx, limits: LimitSettings, owner_id: UUID, project_id: UUID, sizes: list[int]
) -> dict[int, QuotaExceeded]:
    """Of instances that come without an upload: those (by position) for which there is no room any more."""
    refused: dict[int, QuotaExceeded] = {}
    for subject, subject_id in zip(SUBJECTS, (owner_id, project_id), strict=True):
        if (await _quota(tx, limits, subject, subject_id)).stored_bytes is None:
            continue
        await _lock(tx, subject_id)
        usage = await usage_of(tx, limits, subject, subject_id)
        assert usage.quota.stored_bytes is not None, "it was there a statement ago"
        room = usage.quota.stored_bytes - usage.stored_bytes - usage.in_flight_bytes
        for position, size in enumerate(sizes):
            if position in refused:
                continue
            room -= size
            if room < 0:
                room += size
                refused[position] = QuotaExceeded(
                    f"The quota of the {subject} is used up.", quota="stored_bytes", subject=subject,
                    limit=usage.quota.stored_bytes, used=usage.stored_bytes,
                )  # fmt: skip
    return refused


async def fold_usage(tx: WriteTx) -> None:
    """Upkeep: the changes that instances left when they came and went become one number each."""
    await tx.execute(
        "with gone as (delete from upload_usage_changes returning subject, subject_id, bytes)"
        " insert into upload_usage (subject, subject_id, stored_bytes)"
        " select subject, subject_id, sum(bytes) from gone group by 1, 2 order by 1, 2"
        " on conflict (subject, subject_id) do update set stored_bytes = upload_usage.stored_bytes + excluded.stored_bytes"
    )


async def _lock(tx: WriteTx, subject_id: UUID) -> None:
    await tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"upload quota {subject_id}")


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
