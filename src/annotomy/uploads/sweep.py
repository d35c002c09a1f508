"""What becomes of uploads that nobody goes on with, and of files that a crash left without a row."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import structlog

from annotomy.actor import SYSTEM
from annotomy.archive.quotas import fold_usage
from annotomy.services import Services
from annotomy.uploads.errors import NotTakenIn, UploadGone
from annotomy.uploads.part_file import part_file, remove
from annotomy.uploads.progress import tell
from annotomy.uploads.staged import drop_staged, sweep_staged

log = structlog.get_logger(__name__)

YOUNG_S = 24 * 3600
"""A part file is made before its row, and no request or job writes a temporary file for so long: only one of this age was
left by a crash."""
BATCH = 500


async def sweep_uploads(services: Services) -> int:
    """Ends expired uploads and those whose job was given up, row first, then the bytes; removes old files without a row.
    Returns how many went."""
    async with services.db.write(SYSTEM) as tx:
        rows = await tx.fetch(
            "update uploads set state = 'failed', problem = $2, finished_at = now() where id in (select id from uploads"
            " where state = 'receiving' and expires_at < $1 limit $3 for update skip locked) returning id, multipart_id",
            services.clock.now(), UploadGone("Nothing came for the upload's lifetime.").to_json(), BATCH,
        )  # fmt: skip
        for row in rows:
            await tell(tx, "upload.expired", row["id"])
        given_up = await tx.fetch(
            "update uploads u set state = 'failed', problem = $1, finished_at = now() from jobs j where j.id = u.job_id"
            " and j.state in ('failed', 'cancelled') and u.state in ('verifying', 'ingesting') returning u.id, u.multipart_id",
            NotTakenIn("The server tried and came to no end.").to_json(),
        )  # fmt: skip
        for row in given_up:
            await tell(tx, "upload.failed", row["id"])
        rows += given_up
        await fold_usage(tx)
    for row in rows:
        await asyncio.to_thread(remove, part_file(services, row["id"]))
        if row["multipart_id"] is not None:
            await drop_staged(services, row["id"], row["multipart_id"])
    staged = await sweep_staged(services, young=timedelta(seconds=YOUNG_S))
    orphans = await _orphans(services) + await asyncio.to_thread(_old_files, services.settings.spool_dir)
    for path in orphans:
        await asyncio.to_thread(path.unlink, missing_ok=True)
    if rows or orphans or staged:
        log.info("uploads.swept", expired=len(rows), orphans=len(orphans), staged=staged)
    return len(rows) + len(orphans) + staged


async def _orphans(services: Services) -> list[Path]:
    old = await asyncio.to_thread(_old_files, services.settings.data_dir / "uploads")
    named = {path: _upload_of(path) for path in old[:BATCH]}
    async with services.db.read(SYSTEM) as tx:
        rows = await tx.fetch(
            "select id from uploads where id = any($1) and state in ('receiving', 'verifying', 'ingesting')",
            [upload_id for upload_id in named.values() if upload_id is not None],
        )
    alive = {row["id"] for row in rows}
    return [path for path, upload_id in named.items() if upload_id is not None and upload_id not in alive]


def _old_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    youngest = time.time() - YOUNG_S
    return [path for path in folder.iterdir() if path.is_file() and path.stat().st_mtime < youngest]


def _upload_of(path: Path) -> UUID | None:
    """None for a file that is none of ours: it stays."""
    try:
        return UUID(path.name.split(".")[0])
    except ValueError:
        return None
