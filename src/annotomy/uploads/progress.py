"""How an upload stands: one view of its row, which `GET /uploads/{id}` answers and events carry, so that both agree.

Events hold numbers and states only: names of files may name people. What became of each file, the upload itself says.
"""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from annotomy.db.engine import WriteTx
from annotomy.events import Event, emit

PROGRESS_S: Final = 2.0
"""Events of one upload that only tell of more bytes or files come no closer together: each is kept, and audited."""

COLUMNS: Final = 'state, received as "offset", length, bytes_per_second, files_done'


async def tell(tx: WriteTx, event_type: str, upload_id: UUID, **more: Any) -> None:
    """An event with the upload as it stands in this transaction."""
    row = await tx.fetchrow(f"select project_id, manifest_id, {COLUMNS} from uploads where id = $1", upload_id)
    if row is None:
        return
    data = dict(row)
    project_id, manifest_id = data.pop("project_id"), data.pop("manifest_id")
    if manifest_id is not None:
        data["manifest_id"] = str(manifest_id)
    event = Event(
        type=event_type, object_kind="upload", object_id=str(upload_id), project_id=project_id, data=data | more
    )
    await emit(tx, event)


async def tell_bytes(tx: WriteTx, upload_id: UUID, now: datetime) -> None:
    """After more bytes are booked: their rate since the last time, when that is long enough ago."""
    moved = await tx.fetchval(
        "update uploads set bytes_per_second = (received - told_bytes) / extract(epoch from $2 - told_at), told_at = $2,"
        " told_bytes = received where id = $1 and told_at <= $3 and told_at < $2 returning id",
        upload_id, now, now - timedelta(seconds=PROGRESS_S),
    )  # fmt: skip
    if moved is not None:
        await tell(tx, "upload.progressed", upload_id)


async def tell_files(tx: WriteTx, upload_id: UUID, files_done: int) -> None:
    await tx.execute("update uploads set files_done = $2 where id = $1", upload_id, files_done)
    await tell(tx, "upload.progressed", upload_id)
