"""Live updates: one listener for each process, woken by NOTIFY, which wakes the open streams; each reads what it may see."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from annotomy.actor import Actor
from annotomy.collaboration.errors import TooManyStreams
from annotomy.collaboration.feed import FeedEvent, last_position, number_new_events, read_feed
from annotomy.errors import Unauthenticated
from annotomy.events import CHANNEL
from annotomy.services import Services

log = structlog.get_logger(__name__)

GATHER_S = 0.1
"""Events that come within this time wake the streams once."""
KEEP_ALIVE_S = 15.0
"""A comment is sent after so long without an event: proxies cut silent connections."""
CHECK_S = 1.0
"""How often a stream looks whether its server is to stop."""
RIGHTS_S = 4.0
"""How often a stream's credential is checked again: what was revoked ends within 5 s."""
RECONNECT_S = 1.0
BATCH_EVENTS = 200
MAX_STREAMS_OF_USER = 20
"""Of one user in one process: tabs, not bots."""


Shape = Callable[[FeedEvent], Awaitable[bytes | None]]
"""What a stream says of an event, or that it leaves it out."""


class LiveUpdates:
    """The streams of this process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._turn = asyncio.Condition()
        self._turns = 0
        self._open: Counter[UUID] = Counter()

    async def listen(self) -> None:
        """Until cancelled. After a lost connection every stream looks once, since wakes may have been missed."""
        while True:
            try:
                await self._listen_once()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("live.listener_lost", reason=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _listen_once(self) -> None:
        woken, lost = asyncio.Event(), asyncio.Event()
        connection = await asyncpg.connect(self._services.db.url)
        try:

            def on_lost(_: object) -> None:
                lost.set()
                woken.set()

            def on_word(*_: object) -> None:
                woken.set()

            connection.add_termination_listener(on_lost)
            await connection.add_listener(CHANNEL, on_word)
            woken.set()
            while not lost.is_set():
                await woken.wait()
                await asyncio.sleep(GATHER_S)
                woken.clear()
                await number_new_events(self._services.db)
                await self._wake()
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=1)

    async def _wake(self) -> None:
        async with self._turn:
            self._turns += 1
            self._turn.notify_all()

    async def stream(
        self,
        actor: Actor,
        *,
        after: int | None,
        project_id: UUID | None,
        still_allowed: Callable[[], Awaitable[Actor]],
        draining: Callable[[], bool],
        shape: Shape | None = None,
    ) -> AsyncIterator[bytes]:
        """Server-sent events (WHATWG HTML 9.2) after a position, or from now on without one."""
        if self._open[actor.user_id] >= MAX_STREAMS_OF_USER:
            raise TooManyStreams(f"One user may have {MAX_STREAMS_OF_USER} event streams open.")
        self._open[actor.user_id] += 1
        try:
            async for piece in self._pieces(actor, after, project_id, still_allowed, draining, shape):
                yield piece
        finally:
            self._open[actor.user_id] -= 1

    async def _pieces(
        self,
        actor: Actor,
        after: int | None,
        project_id: UUID | None,
        still_allowed: Callable[[], Awaitable[Actor]],
        draining: Callable[[], bool],
        shape: Shape | None,
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        if after is None:
            await number_new_events(self._services.db)  # what has happened already is not news
            async with self._services.db.read(actor) as tx:
                after = await last_position(tx)
        yield f"retry: {int(RECONNECT_S * 1000)}\nid: {after}\n\n".encode()
        checked = spoke = loop.time()
        while not draining():
            turn = self._turns
            found = await self._read(actor, after, project_id)
            for event in found:
                piece = _message(event) if shape is None else await shape(event)
                if piece is not None:
                    yield piece
                after = event.seq
            now = loop.time()
            if found:
                spoke = now
            elif now - spoke >= KEEP_ALIVE_S:
                yield b": still here\n\n"
                spoke = now
            if len(found) < BATCH_EVENTS:
                try:
                    checked = await self._wait(turn, checked, still_allowed, draining, until=spoke + KEEP_ALIVE_S)
                except Unauthenticated:
                    return  # the client learns why when it connects again

    async def _wait(
        self,
        turn: int,
        checked: float,
        still_allowed: Callable[[], Awaitable[Actor]],
        draining: Callable[[], bool],
        *,
        until: float,
    ) -> float:
        """Until something happened, the connection needs a word, or the server stops. Raises what ends the right to listen."""
        loop = asyncio.get_running_loop()
        while self._turns == turn and loop.time() < until and not draining():
            if loop.time() - checked >= RIGHTS_S:
                await still_allowed()
                checked = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S), self._turn:
                    await self._turn.wait_for(lambda: self._turns != turn)
        return checked

    async def _read(self, actor: Actor, after: int, project_id: UUID | None) -> list[FeedEvent]:
        async with self._services.db.read(actor) as tx:
            return await read_feed(tx, after=after, limit=BATCH_EVENTS, project_id=project_id)


@asynccontextmanager
async def live_updates(services: Services) -> AsyncGenerator[LiveUpdates]:
    live = LiveUpdates(services)
    listening = asyncio.create_task(live.listen())
    try:
        yield live
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


def _message(event: FeedEvent) -> bytes:
    encoded: Any = msgspec.json.encode(event)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), encoded)
