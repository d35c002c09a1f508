"""Associations that we ask for (PS3.8 7.1 as requestor): C-MOVE sub-operations, results of storage commitment, remotes."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from annotomy.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from annotomy.dimse.dialogue import Dialogue, Message, Spool
from annotomy.dimse.incoming_data import MemoryBudget
from annotomy.dimse.negotiation import AcceptedContext
from annotomy.dimse.pdu import (
    MAX_DATA_BYTES,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    Role,
    UserInformation,
    encode,
)
from annotomy.dimse.peers import Destination
from annotomy.dimse.upper_layer import SOURCE_USER, AssociationEnded, Deadlines, UpperLayer

log = structlog.get_logger(__name__)

CONNECT_S = 10.0
"""For a destination to take the connection and answer the request: an operator waits for it."""
RELEASE_S = 5.0
WATCH_S = 1.0
"""How often deadlines are looked at."""


class NoAssociation(Exception):
    """The destination cannot be reached or does not want us. The text says which, without any patient data."""

    def __init__(self, text: str, *, rejected: bool = False) -> None:
        super().__init__(text)
        self.rejected = rejected


@asynccontextmanager
async def associate(
    destination: Destination,
    *,
    calling: str,
    contexts: Sequence[ProposedContext],
    roles: tuple[Role, ...] = (),
    budget: MemoryBudget,
    deadlines: Deadlines | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    spool: Spool | None = None,
    on_request: Callable[[Message], Coroutine[Any, Any, None]] | None = None,
) -> AsyncGenerator[Dialogue]:
    """A dialogue with what the destination accepted; released at the end of the block. Raises NoAssociation.

    `deadlines` are watched where they are given. `spool` and `on_request` are for requests that come back to us (C-GET).
    """
    layer = UpperLayer(deadlines or Deadlines())
    try:
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().create_connection(
                lambda: layer, destination.host, destination.port, ssl=tls, server_hostname=server_name if tls else None
            )
            user = UserInformation(MAX_DATA_BYTES, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, roles=roles)
            layer.write([encode(AssociateRequest(destination.ae_title, calling, tuple(contexts), user))])
            answer = await layer.receive()
    except (OSError, TimeoutError, AssociationEnded) as error:
        layer.abort(SOURCE_USER, 0, "no-association")
        raise NoAssociation(f"the destination does not answer ({type(error).__name__})") from error
    if not isinstance(answer, AssociateAccept):
        layer.abort(SOURCE_USER, 0, "no-association")
        reason = answer.reason if isinstance(answer, AssociateReject) else -1
        raise NoAssociation(f"the destination rejects the association (reason {reason})", rejected=True)
    layer.established()
    dialogue = Dialogue(
        layer, _accepted(contexts, answer), answer.user.max_length, budget=budget, spool=spool, on_request=on_request
    )
    running = asyncio.create_task(dialogue.run())
    watching = None if deadlines is None else asyncio.create_task(_watch(layer))
    try:
        yield dialogue
        with contextlib.suppress(AssociationEnded):
            await dialogue.release()
            await asyncio.wait([running], timeout=RELEASE_S)
    finally:
        layer.abort(SOURCE_USER, 0, "requestor-ends")
        if watching is not None:
            watching.cancel()
        await asyncio.wait([running])


async def _watch(layer: UpperLayer) -> None:
    while not layer.ended:
        await asyncio.sleep(WATCH_S)
        layer.expire(time.monotonic())


def _accepted(proposed: Sequence[ProposedContext], answer: AssociateAccept) -> dict[int, AcceptedContext]:
    by_id = {context.id: context for context in proposed}
    return {
        result.id: AcceptedContext(result.id, by_id[result.id].abstract_syntax, result.transfer_syntax)
        for result in answer.contexts
        if result.result == ContextResult.ACCEPTED
        and result.id in by_id
        and result.transfer_syntax in by_id[result.id].transfer_syntaxes
    }
