"""Associations that we ask for (PS3.8 7.1 as requestor): C-MOVE sub-operations and results of storage commitment."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import structlog

from annotomy.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from annotomy.dimse.dialogue import Dialogue
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


class NoAssociation(Exception):
    """The destination cannot be reached or does not want us. The text says which, without any patient data."""


@asynccontextmanager
async def associate(
    destination: Destination,
    *,
    calling: str,
    contexts: Sequence[ProposedContext],
    roles: tuple[Role, ...] = (),
    budget: MemoryBudget,
) -> AsyncGenerator[Dialogue]:
    """A dialogue with what the destination accepted; released at the end of the block. Raises NoAssociation."""
    layer = UpperLayer(Deadlines())
    try:
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().create_connection(lambda: layer, destination.host, destination.port)
            user = UserInformation(MAX_DATA_BYTES, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, roles=roles)
            layer.write([encode(AssociateRequest(destination.ae_title, calling, tuple(contexts), user))])
            answer = await layer.receive()
    except (OSError, TimeoutError, AssociationEnded) as error:
        layer.abort(SOURCE_USER, 0, "no-association")
        raise NoAssociation(f"the destination does not answer ({type(error).__name__})") from error
    if not isinstance(answer, AssociateAccept):
        layer.abort(SOURCE_USER, 0, "no-association")
        reason = answer.reason if isinstance(answer, AssociateReject) else -1
        raise NoAssociation(f"the destination rejects the association (reason {reason})")
    layer.established()
    dialogue = Dialogue(layer, _accepted(contexts, answer), answer.user.max_length, budget=budget)
    running = asyncio.create_task(dialogue.run())
    try:
        yield dialogue
        with contextlib.suppress(AssociationEnded):
            await dialogue.release()
            await asyncio.wait([running], timeout=RELEASE_S)
    finally:
        layer.abort(SOURCE_USER, 0, "requestor-ends")
        await asyncio.wait([running])


def _accepted(proposed: Sequence[ProposedContext], answer: AssociateAccept) -> dict[int, AcceptedContext]:
    by_id = {context.id: context for context in proposed}
    return {
        result.id: AcceptedContext(result.id, by_id[result.id].abstract_syntax, result.transfer_syntax)
        for result in answer.contexts
        if result.result == ContextResult.ACCEPTED
        and result.id in by_id
        and result.transfer_syntax in by_id[result.id].transfer_syntaxes
    }
