"""Messages over an established association (PS3.7 6, PS3.8 Annex E), for both sides.

`run` takes PDUs until the association ends: it puts fragments together, hands requests to `on_request` as tasks, responses
to whoever asked, and remembers C-CANCEL. Requests that are in hand at once are limited; one association sends one message
at a time.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from annotomy.dimse.command import (
    MAX_COMMAND_BYTES,
    NO_DATA_SET,
    RESPONSE,
    WITH_DATA_SET,
    Command,
    CommandError,
    E,
    Field,
    decode_command,
    encode_command,
    has_data_set,
)
from annotomy.dimse.incoming_data import IncomingData, MemoryBudget
from annotomy.dimse.negotiation import MAX_WINDOW, AcceptedContext
from annotomy.dimse.pdu import MAX_DATA_BYTES, Data, Pdu, PduError, ReleaseReply, ReleaseRequest, data_head, encode
from annotomy.dimse.upper_layer import SOURCE_PROVIDER, AssociationEnded, UpperLayer

log = structlog.get_logger(__name__)

MAX_IDENTIFIER_BYTES = 8 << 20
"""Data sets that are no instances: identifiers with lists of UIDs, storage commitment requests of some ten thousand."""
PENDING = (0xFF00, 0xFF01)
"""Status words of answers that others follow (PS3.4 C.4.1.1.4)."""
PARTS_PER_WRITE = 16
"""Fragments handed to the kernel at once, about 2 MiB."""


@dataclass(slots=True)
class Message:
    context: AcceptedContext
    command: Command
    data_set: IncomingData | None
    cancelled: bool = field(default=False)
    """Set when a C-CANCEL for it arrives; long operations look at it between two answers."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A data set that is sent piece by piece; the association is aborted when the pieces do not make up the length."""

    length: int
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Spool:
    """Where instances go while they arrive. `head` gives what stands in a file before the data set."""

    folder: Path
    limit_bytes: int
    head: Callable[[AcceptedContext, Command], bytes]


class Dialogue:
    """`contexts` are the accepted ones; `peer_max_length` is what the peer announced (0: any)."""

    def __init__(
        self,
        layer: UpperLayer,
        contexts: dict[int, AcceptedContext],
        peer_max_length: int,
        *,
        budget: MemoryBudget,
        spool: Spool | None = None,
        on_request: Callable[[Message], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.layer = layer
        self.contexts = contexts
        self._fragment_bytes = (min(peer_max_length or MAX_DATA_BYTES, MAX_DATA_BYTES) - 6) & ~1
        self._budget = budget
        self._spool = spool
        self._on_request = on_request
        self._command = bytearray()
        self._arriving: Message | None = None
        self._in_hand: dict[int, Message] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._mailboxes: dict[int, asyncio.Queue[Message | None]] = {}
        self._last_message_id = 0
        self._sending = asyncio.Lock()
        self._released = asyncio.Event()

    # -- taking ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the association is released or ends otherwise. Leaves nothing behind that arrived in part."""
        try:
            while await self._take_pdu(await self.layer.receive()):
                pass
        except PduError as error:
            log.warning("dimse.protocol_error", peer=self.layer.peer_address, reason=str(error))
            self.layer.abort(SOURCE_PROVIDER, error.reason, "protocol-error")
        except AssociationEnded:
            pass
        finally:
            if self._arriving is not None and self._arriving.data_set is not None:
                self._arriving.data_set.discard()
            await self._finish_tasks()

    async def _take_pdu(self, pdu: Pdu) -> bool:
        """False when it was the last."""
        match pdu:
            case Data():
                for fragment in pdu.fragments:
                    await self._take(fragment.context_id, fragment.is_command, fragment.is_last, fragment.data)
                return True
            case ReleaseRequest():
                await self._finish_tasks()
                self.layer.write([encode(ReleaseReply())])
                await self.layer.close()
            case ReleaseReply() if self._released.is_set():
                self.layer.hang_up()
            case _:
                raise PduError("a PDU that does not belong here", PduError.UNEXPECTED)
        return False

    async def release(self) -> None:
        """As requestor (AR-1): asks for the end; `run` sees the answer."""
        self._released.set()
        self.layer.write([encode(ReleaseRequest())])

    async def _take(self, context_id: int, is_command: bool, is_last: bool, data: memoryview) -> None:
        if is_command:
            if self._arriving is not None:
                raise PduError("a command comes before the data set of the last one ended", PduError.UNEXPECTED)
            self._command += data
            if len(self._command) > MAX_COMMAND_BYTES:
                raise PduError("a command set is too long")
            if is_last:
                await self._begin(context_id)
            return
        message = self._arriving
        if message is None or message.data_set is None or message.context.id != context_id:
            raise PduError("a data set without a command", PduError.UNEXPECTED)
        if message.data_set.add(data):
            await message.data_set.flush()
        if is_last:
            self._arriving = None
            await message.data_set.finish()
            self._dispatch(message)

    async def _begin(self, context_id: int) -> None:
        context = self.contexts.get(context_id)
        if context is None:
            raise PduError("a message on a context that was not accepted", PduError.UNEXPECTED)
        try:
            command = decode_command(self._command)
        except CommandError as error:
            raise PduError(str(error)) from error
        self._command.clear()
        if not has_data_set(command):
            self._dispatch(Message(context, command, None))
            return
        spool = self._spool if command[E.COMMAND_FIELD] == Field.C_STORE_RQ else None
        data_set = IncomingData(
            self._budget,
            head=spool.head(context, command) if spool else b"",
            limit_bytes=spool.limit_bytes if spool else MAX_IDENTIFIER_BYTES,
            folder=spool.folder if spool else None,
        )
        self._arriving = Message(context, command, data_set)

    def _dispatch(self, message: Message) -> None:
        command_field = message.command[E.COMMAND_FIELD]
        if command_field == Field.C_CANCEL_RQ:
            asked = self._in_hand.get(message.command.get(E.MESSAGE_ID_RESPONDED_TO, -1))
            if asked is not None:
                asked.cancelled = True
        elif command_field & RESPONSE:
            message_id = message.command.get(E.MESSAGE_ID_RESPONDED_TO, -1)
            answer, mailbox = self._answers.get(message_id), self._mailboxes.get(message_id)
            if answer is not None and not answer.done():
                answer.set_result(message)
            elif mailbox is not None:
                mailbox.put_nowait(message)
            elif message.data_set is not None:
                message.data_set.discard()
        else:
            self._begin_request(message)

    def _begin_request(self, message: Message) -> None:
        message_id = message.command.get(E.MESSAGE_ID)
        if self._on_request is None or message_id is None or message_id in self._in_hand:
            raise PduError("a request where none is taken, or without an id of its own", PduError.UNEXPECTED)
        if len(self._in_hand) >= MAX_WINDOW:
            raise PduError("more operations at once than were negotiated", PduError.UNEXPECTED)
        self._in_hand[message_id] = message
        task = asyncio.create_task(self._serve(self._on_request, message, message_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, on_request: Callable[[Message], Awaitable[None]], message: Message, message_id: int) -> None:
        try:
            with self.layer.serving():
                await on_request(message)
        except AssociationEnded:
            pass
        finally:
            self._in_hand.pop(message_id, None)
            if message.data_set is not None:
                message.data_set.discard()

    async def _finish_tasks(self) -> None:
        """What is in hand is told to stop, and waited for: a store that has begun ends as it would have."""
        for message in self._in_hand.values():
            message.cancelled = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AssociationEnded(self.layer.ended or "released"))
                answer.exception()  # whoever waited may be gone
        for mailbox in self._mailboxes.values():
            mailbox.put_nowait(None)
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(self, context_id: int, command: Command, data_set: "bytes | Stream | None" = None) -> None:
        """One message."""
        parts = self._fragments(context_id, encode_command(command), is_command=True)
        if isinstance(data_set, bytes):
            parts += self._fragments(context_id, data_set, is_command=False)
        async with self._sending:
            for first in range(0, len(parts), PARTS_PER_WRITE):
                self.layer.write(parts[first : first + PARTS_PER_WRITE])
                await self.layer.drain()
            if isinstance(data_set, Stream):
                await self._send_stream(context_id, data_set)

    async def _send_stream(self, context_id: int, stream: "Stream") -> None:
        sent = 0
        try:
            async for piece in stream.pieces:
                sent += len(piece)
                self.layer.write(self._fragments(context_id, piece, is_command=False, ends=sent >= stream.length))
                await self.layer.drain()
        finally:
            if sent != stream.length:  # half a message cannot be taken back
                self.layer.abort(SOURCE_PROVIDER, 0, "broken-stream")

    def _fragments(
        self, context_id: int, data: bytes, *, is_command: bool, ends: bool = True
    ) -> list[bytes | memoryview]:
        view, size = memoryview(data), self._fragment_bytes
        parts: list[bytes | memoryview] = []
        for at in range(0, max(len(view), 1), size):
            piece = view[at : at + size]
            is_last = ends and at + size >= len(view)
            parts += (data_head(context_id, len(piece), is_command=is_command, is_last=is_last), piece)
        return parts

    async def request(
        self, context_id: int, command: dict[int, Any], data_set: "bytes | Stream | None", *, timeout_s: float
    ) -> Message:
        """Sends a request under a message id of its own and waits for its one answer. Raises AssociationEnded."""
        message_id = self._next_message_id()
        command[E.MESSAGE_ID] = message_id
        command[E.DATA_SET_TYPE] = NO_DATA_SET if data_set is None else WITH_DATA_SET
        answer = self._answers[message_id] = asyncio.get_running_loop().create_future()
        try:
            await self.send(context_id, command, data_set)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            self.layer.abort(SOURCE_PROVIDER, 0, "answer-timeout")
            raise AssociationEnded("answer-timeout") from None
        finally:
            del self._answers[message_id]

    async def responses(
        self,
        context_id: int,
        command: dict[int, Any],
        data_set: bytes | None,
        *,
        timeout_s: float | None,
        message_id: int | None = None,
    ) -> AsyncGenerator[Message]:
        """Sends a request and gives its answers, the final one last. Raises AssociationEnded. `timeout_s` is for each answer;
        None leaves it to the layer's deadlines. Closed early, it leaves the operation to `cancel` or to the association's end."""
        message_id = message_id or self._next_message_id()
        command[E.MESSAGE_ID] = message_id
        command[E.DATA_SET_TYPE] = NO_DATA_SET if data_set is None else WITH_DATA_SET
        mailbox = self._mailboxes[message_id] = asyncio.Queue[Message | None]()
        try:
            await self.send(context_id, command, data_set)
            while (message := await self._from(mailbox, timeout_s)).command.get(E.STATUS) in PENDING:
                yield message
            yield message
        finally:
            del self._mailboxes[message_id]
            while not mailbox.empty():
                rest = mailbox.get_nowait()
                if rest is not None and rest.data_set is not None:
                    rest.data_set.discard()

    async def _from(self, mailbox: "asyncio.Queue[Message | None]", timeout_s: float | None) -> Message:
        try:
            async with asyncio.timeout(timeout_s):
                message = await mailbox.get()
        except TimeoutError:
            self.layer.abort(SOURCE_PROVIDER, 0, "answer-timeout")
            raise AssociationEnded("answer-timeout") from None
        if message is None:
            raise AssociationEnded(self.layer.ended or "released")
        return message

    async def cancel(self, context_id: int, message_id: int) -> None:
        """C-CANCEL of an operation that we asked for."""
        command: dict[int, Any] = {
            E.COMMAND_FIELD: int(Field.C_CANCEL_RQ),
            E.MESSAGE_ID_RESPONDED_TO: message_id,
            E.DATA_SET_TYPE: NO_DATA_SET,
        }
        await self.send(context_id, command)

    def _next_message_id(self) -> int:
        self._last_message_id = self._last_message_id % 0xFFFF + 1
        return self._last_message_id
