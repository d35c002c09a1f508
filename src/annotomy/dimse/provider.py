"""What we are to a peer that calls: Sta2 to Sta6 of PS3.8 9.2 as acceptor, then one handler for each kind of request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
import structlog

from annotomy.actor import SYSTEM
from annotomy.archive.group_commit import GroupCommit
from annotomy.dimse.audited import note_refusal
from annotomy.dimse.command import E, Field, response_to
from annotomy.dimse.commitment import commit, take_result
from annotomy.dimse.dialogue import Dialogue, Message, Spool
from annotomy.dimse.incoming_data import MemoryBudget
from annotomy.dimse.negotiation import (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    is_storage,
    negotiate,
)
from annotomy.dimse.pdu import APPLICATION_CONTEXT, AssociateReject, AssociateRequest, PduError, encode
from annotomy.dimse.peers import Peer, find_peer, open_peer
from annotomy.dimse.query import find
from annotomy.dimse.retrieve import get, move
from annotomy.dimse.status import Status, status_of
from annotomy.dimse.store import instance_head, store
from annotomy.dimse.upper_layer import SOURCE_PROVIDER, AssociationEnded, UpperLayer
from annotomy.errors import Problem
from annotomy.ops.audit_queue import AuditQueue
from annotomy.origin import ORIGIN, Origin
from annotomy.services import Services

log = structlog.get_logger(__name__)

# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
REJECT_CALLED = AssociateReject(1, 1, 7)
REJECT_CALLING = AssociateReject(1, 1, 3)
REJECT_CONTEXT = AssociateReject(1, 1, 2)
REJECT_VERSION = AssociateReject(1, 2, 2)
REJECT_CONGESTED = AssociateReject(2, 3, 1)
"""Transient: the database does not answer now."""
REJECT_BUSY = AssociateReject(2, 3, 2)
"""Transient: local limit exceeded."""

SMALLEST_PEER_LENGTH = 1024
"""A peer that takes less than this in a P-DATA would cost more in PDUs than it brings."""


@dataclass
class Shared:
    """What all associations of the listener share."""

    services: Services
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    by_title: dict[str, int] = field(default_factory=dict[str, int])
    """Associations of each calling AE title."""
    group: GroupCommit = field(init=False)
    audit: AuditQueue = field(init=False)
    """Its writer runs beside the listener (server.py)."""

    def __post_init__(self) -> None:
        self.group = GroupCommit(self.services)
        self.audit = AuditQueue(self.services.db)

    @property
    def associations(self) -> int:
        return sum(self.by_title.values())


async def provide(layer: UpperLayer, shared: Shared) -> None:
    """One association from its request to its end, in a task of its own: all that it does comes from the peer's address."""
    ORIGIN.set(Origin(layer.peer_address or "local"))
    try:
        request = await layer.receive()
        if not isinstance(request, AssociateRequest):
            layer.abort(SOURCE_PROVIDER, PduError.UNEXPECTED, "no-association")
            return
        peer = await _judge(layer, shared, request)
        if isinstance(peer, AssociateReject):
            log.warning("dimse.rejected", peer=layer.peer_address, source=peer.source, reason=peer.reason)
            layer.write([encode(peer)])
            await layer.close()
            return
    except AssociationEnded:
        return
    title = request.calling_ae_title
    shared.by_title[title] = shared.by_title.get(title, 0) + 1
    try:
        await _associate(layer, shared, request, peer)
    finally:
        shared.by_title[title] -= 1
        if not shared.by_title[title]:
            del shared.by_title[title]


async def _judge(layer: UpperLayer, shared: Shared, request: AssociateRequest) -> Peer | AssociateReject:
    """Whether we talk, and as whom the peer acts."""
    settings = shared.services.settings.dimse
    if not request.protocol_version & 1:
        return REJECT_VERSION
    if request.application_context != APPLICATION_CONTEXT:
        return REJECT_CONTEXT
    if request.called_ae_title != settings.ae_title:
        return REJECT_CALLED
    title = request.calling_ae_title
    try:
        async with shared.services.db.read(SYSTEM) as tx:
            peer = await find_peer(tx, title, layer.peer_address)
            if peer is None and settings.open:
                peer = await open_peer(tx, title)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("dimse.no_database", reason=type(error).__name__)
        return REJECT_CONGESTED
    if peer is None:
        return REJECT_CALLING
    full = shared.associations >= settings.associations
    if full or shared.by_title.get(title, 0) >= settings.associations_for_peer:
        return REJECT_BUSY
    return peer


async def _associate(layer: UpperLayer, shared: Shared, request: AssociateRequest, peer: Peer) -> None:
    accept, contexts = negotiate(request)
    max_length = request.user.max_length
    if 0 < max_length < SMALLEST_PEER_LENGTH:
        layer.abort(SOURCE_PROVIDER, PduError.INVALID, "pdu-too-small")
        return
    services = shared.services
    spool = Spool(services.settings.spool_dir, services.settings.limits.instance_bytes, instance_head)
    ORIGIN.set(Origin(layer.peer_address or "local", reason=peer.purpose))
    session = Session(shared, peer, request)
    session.dialogue = Dialogue(
        layer, contexts, max_length, budget=shared.budget, spool=spool, on_request=session.answer
    )
    try:
        layer.write([encode(accept)])
    except AssociationEnded:
        return
    layer.established()
    log.info("dimse.associated", ae_title=peer.ae_title, peer=layer.peer_address, contexts=len(contexts))
    await session.dialogue.run()
    log.info("dimse.ended", ae_title=peer.ae_title, peer=layer.peer_address, how=layer.ended)


class Session:
    """An association in Sta6 and what its requests need."""

    dialogue: Dialogue

    def __init__(self, shared: Shared, peer: Peer, request: AssociateRequest) -> None:
        self.shared = shared
        self.services = shared.services
        self.peer = peer
        self.request = request

    async def answer(self, message: Message) -> None:
        """Every request gets a final response; what we did not foresee becomes one as well, and a line in the log."""
        command_field = message.command[E.COMMAND_FIELD]
        handler = HANDLERS.get(command_field)
        try:
            if handler is None:
                status, comment = Status.UNRECOGNIZED_OPERATION, ""
            elif not handler.serves(message.context.abstract_syntax):
                status, comment = Status.SOP_CLASS_NOT_SUPPORTED, ""
            else:
                await handler.run(self, message)
                return
        except AssociationEnded:
            raise
        except Problem as problem:
            await note_refusal(self.shared.audit, self.peer, command_field, problem)
            status, comment = status_of(problem), problem.title
        except Exception:
            # The peer waits for an answer; the log has the failure.
            log.exception("dimse.failed", command=hex(command_field))
            status, comment = Status.PROCESSING_FAILURE, "an error of this server; its log tells more"
        await self.dialogue.send(message.context.id, response_to(message.command, status, comment=comment))


async def _echo(session: Session, message: Message) -> None:
    await session.dialogue.send(message.context.id, response_to(message.command, Status.SUCCESS))


async def _store(session: Session, message: Message) -> None:
    await store(session.dialogue, session.services, session.peer, session.shared.group, message)


async def _find(session: Session, message: Message) -> None:
    await find(session.dialogue, session.services, session.peer, message, session.shared.audit)


async def _get(session: Session, message: Message) -> None:
    await get(session.dialogue, session.services, session.peer, message, session.shared.audit)


async def _move(session: Session, message: Message) -> None:
    shared = session.shared
    await move(session.dialogue, session.services, session.peer, message, shared.budget, shared.audit)


async def _commit(session: Session, message: Message) -> None:
    await commit(session.dialogue, session.services, session.peer, message)


async def _result(session: Session, message: Message) -> None:
    await take_result(session.dialogue, session.services, session.peer, message)


@dataclass(frozen=True, slots=True)
class _Handler:
    run: Callable[[Session, Message], Awaitable[None]]
    serves: Callable[[str], bool]
    """Whether the request may come on a context of this abstract syntax."""


HANDLERS: dict[int, _Handler] = {
    Field.C_ECHO_RQ: _Handler(_echo, lambda abstract_syntax: abstract_syntax == VERIFICATION),
    Field.C_STORE_RQ: _Handler(_store, is_storage),
    Field.N_ACTION_RQ: _Handler(_commit, STORAGE_COMMITMENT.__eq__),
    Field.N_EVENT_REPORT_RQ: _Handler(_result, STORAGE_COMMITMENT.__eq__),
    Field.C_GET_RQ: _Handler(_get, {PATIENT_ROOT_GET, STUDY_ROOT_GET}.__contains__),
    Field.C_MOVE_RQ: _Handler(_move, {PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE}.__contains__),
    Field.C_FIND_RQ: _Handler(_find, {PATIENT_ROOT_FIND, STUDY_ROOT_FIND}.__contains__),
}
