"""Single instances from many senders in shared transactions (C-STORE brings them one by one, each to be acknowledged).

While one transaction commits, those whose bytes became durable meanwhile gather for the next: alone, a sender waits for
its own commit only; together, they share one. What makes a shared transaction fail is found by storing each alone.
"""

import asyncio
from uuid import UUID

import structlog

from annotomy.actor import Actor
from annotomy.archive.store import BATCH_INSTANCES, Incoming, Kept, StoreOutcome, commit, keep
from annotomy.services import Services

log = structlog.get_logger(__name__)

_Lane = tuple[Actor, UUID | None]
_Waiting = tuple[Kept, asyncio.Future[StoreOutcome]]


class GroupCommit:
    """One for a process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: dict[_Lane, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def store(self, actor: Actor, project_id: UUID | None, incoming: Incoming) -> StoreOutcome:
        """Returns after the commit. Raises what `commit` raises."""
        kept = await keep(self._services, incoming)
        if isinstance(kept, StoreOutcome):
            return kept
        done: asyncio.Future[StoreOutcome] = asyncio.get_running_loop().create_future()
        lane = (actor, project_id)
        if lane in self._waiting:
            self._waiting[lane].append((kept, done))
        else:
            self._waiting[lane] = [(kept, done)]
            task = asyncio.create_task(self._run(lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await done

    async def _run(self, lane: _Lane) -> None:
        """As long as anything waits in this lane."""
        while waiting := self._waiting[lane]:
            batch, self._waiting[lane] = waiting[:BATCH_INSTANCES], waiting[BATCH_INSTANCES:]
            await self._commit(lane, batch)
        del self._waiting[lane]

    async def _commit(self, lane: _Lane, batch: list[_Waiting]) -> None:
        actor, project_id = lane
        try:
            outcomes = await commit(self._services, actor, project_id, [kept for kept, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            if len(batch) > 1:
                log.warning("archive.group_commit_failed", instances=len(batch), reason=type(error).__name__)
                for one in batch:
                    await self._commit(lane, [one])
                return
            _, done = batch[0]
            if not done.done():
                done.set_exception(error)
        else:
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                if not done.done():
                    done.set_result(outcome)
