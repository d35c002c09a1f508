"""The job worker process: every kind of job that Annotomy knows, taken from the one queue."""

import asyncio
import signal

import asyncpg
import structlog

from annotomy.annotations.intake import REPORT_CLASSES, take_stored_report
from annotomy.app import REMOTE_OPENERS, open_services
from annotomy.dimse.commitment import REPORT
from annotomy.identity import notices as identity
from annotomy.inference.jobs import RUN_PREDICTION
from annotomy.jobs.engine import BATCH_SIZE, DEQUEUE_TIMEOUT, HEARTBEAT_TIMEOUT, queuer_for
from annotomy.jobs.handlers import HandlerSpec, Schedule
from annotomy.ops.audit_jobs import SCHEDULES as AUDIT_SCHEDULES
from annotomy.remotes.bring import retrieval_handler
from annotomy.remotes.push import push_due, push_handler
from annotomy.remotes.sync import sync_due, sync_handler
from annotomy.segmentations.archiving import ARCHIVE
from annotomy.segmentations.importing import MASK_CLASSES, take_stored_masks
from annotomy.settings import Settings
from annotomy.uploads.derived import taking
from annotomy.uploads.jobs import ingest
from annotomy.uploads.sweep import sweep_uploads

log = structlog.get_logger(__name__)

TAKERS = dict.fromkeys(REPORT_CLASSES, take_stored_report) | dict.fromkeys(MASK_CLASSES, take_stored_masks)
"""What features make of objects that an upload brought, by SOP Class UID."""

HANDLERS: list[HandlerSpec] = [
    *identity.HANDLERS,
    ingest(TAKERS),
    taking(TAKERS),
    RUN_PREDICTION,
    ARCHIVE,
    retrieval_handler(REMOTE_OPENERS),
    push_handler(REMOTE_OPENERS),
    sync_handler(REMOTE_OPENERS),
    REPORT,
]
"""In the order of the features."""

SCHEDULES = [
    Schedule("sweep-uploads", "17 * * * *", sweep_uploads),
    Schedule("push-to-remotes", "* * * * *", push_due),
    Schedule("sync-remotes", "* * * * *", sync_due),
    *AUDIT_SCHEDULES,
]
"""Upkeep, in the order of the features; times are UTC."""


async def run_worker(settings: Settings, database_url: str) -> None:
    """Works until SIGTERM or SIGINT; what is in hand then is finished first. Ends when its connection is lost."""
    async with open_services(settings, database_url) as services:
        connection = await asyncpg.connect(database_url)
        try:
            queuer = queuer_for(connection, services, HANDLERS, SCHEDULES)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, queuer.shutdown.set)
            log.info("worker.started", kinds=[spec.job_type.kind for spec in HANDLERS])
            await queuer.run(
                batch_size=BATCH_SIZE, heartbeat_timeout=HEARTBEAT_TIMEOUT, dequeue_timeout=DEQUEUE_TIMEOUT
            )
        finally:
            await connection.close()
    log.info("worker.ended")
