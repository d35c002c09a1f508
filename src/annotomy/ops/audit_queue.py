"""What is recorded beside requests that change nothing: reads of patient data, downloads, refusals.

Records go through a bounded queue and are written in batches. When the queue is full, requests wait: nothing is dropped. A
download waits until its record is durable and fails when that fails. Repeated reads of one series are one record a minute.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
import structlog

from annotomy.actor import SYSTEM, Actor
from annotomy.audit import Entry, Record, pseudonyms, record_of, write_records
from annotomy.db.engine import Database

log = structlog.get_logger(__name__)

MAX_WAITING = 10_000
"""Records in memory; one is about 1 KB."""
BATCH_RECORDS = 500
RETRY_S = 1.0
"""Between tries to write a batch while the database does not answer."""
REPEAT_S = 60.0
"""A viewer asks for hundreds of frames of one series; within this time they are one record."""
MAX_REPEATS = 20_000


@dataclass(slots=True)
class _Waiting:
    record: Record
    study_instance_uid: str | None
    written: "asyncio.Future[None] | None"


class AuditQueue:
    """One for each process; `run` is its only writer."""

    def __init__(self, db: Database) -> None:
        assert db.audit_key is not None
        self._db = db
        self._key = db.audit_key
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)
        self._seen: OrderedDict[tuple[object, ...], float] = OrderedDict()

    async def note(self, actor: Actor, entry: Entry) -> None:
        """Returns when the record is in the queue, or at once when it repeats one of the last minute."""
        if not self._repeats(actor, entry):
            await self._queue.put(_Waiting(record_of(actor, entry), entry.study_instance_uid, None))

    async def note_durably(self, actor: Actor, entry: Entry) -> None:
        """Returns when the record is committed. Raises what kept it from being written."""
        written = asyncio.get_running_loop().create_future()
        await self._queue.put(_Waiting(record_of(actor, entry), entry.study_instance_uid, written))
        await written

    async def run(self) -> None:
        """Until cancelled; call `drain` before."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH_RECORDS and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            for _ in batch:
                self._queue.task_done()

    async def drain(self) -> None:
        """Returns when all that was noted before is committed."""
        await self._queue.join()

    async def _write(self, batch: list[_Waiting]) -> None:
        while batch:
            try:
                await self._write_once(batch)
            except Exception as error:  # whatever it was: downloads are refused, the other records wait
                log.exception("audit.write_failed", records=len(batch))
                for one in batch:
                    if one.written is not None and not one.written.done():
                        one.written.set_exception(error)
                batch = [one for one in batch if one.written is None]
                await asyncio.sleep(RETRY_S)
            else:
                for one in batch:
                    if one.written is not None and not one.written.done():
                        one.written.set_result(None)
                return

    async def _write_once(self, batch: list[_Waiting]) -> None:
        async with self._db.write(SYSTEM) as tx:
            subjects = [(one.study_instance_uid, one.record.project_id) for one in batch]
            patients = await pseudonyms(tx, self._key, subjects)
            await write_records(
                tx,
                [
                    msgspec.structs.replace(one.record, patient=patients.get(subject, ""))
                    for one, subject in zip(batch, subjects, strict=True)
                ],
            )

    def _repeats(self, actor: Actor, entry: Entry) -> bool:
        key = (actor.user_id, actor.session_id, entry.action, entry.object_kind, entry.object_id, entry.outcome)
        now = time.monotonic()
        last = self._seen.get(key)
        if last is not None and now - last < REPEAT_S:
            return True
        self._seen[key] = now
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_REPEATS:
            self._seen.popitem(last=False)
        return False
