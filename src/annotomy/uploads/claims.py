"""What an archive unpacks to counts against the quota (archive/quotas.py) while it unpacks."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from annotomy.actor import Actor
from annotomy.archive.errors import QuotaExceeded
from annotomy.archive.quotas import require_quota
from annotomy.archive.store import Incoming, StoreOutcome
from annotomy.services import Services

CLAIM_BYTES: Final = 64 << 20
"""An archive claims what it unpacks to in steps of this, each a short transaction."""


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
