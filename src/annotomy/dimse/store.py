"""C-STORE as SCP (PS3.4 B): the data set as received, a file's head in front, into the one store operation.

Success is answered after the commit and never before. Instances of all associations share transactions (group_commit).
"""

import structlog

from annotomy.actor import SYSTEM
from annotomy.archive.group_commit import GroupCommit
from annotomy.archive.store import Incoming
from annotomy.dicom.part10 import file_head
from annotomy.dimse.command import Command, E, response_to
from annotomy.dimse.dialogue import Dialogue, Message
from annotomy.dimse.negotiation import AcceptedContext
from annotomy.dimse.peers import Peer
from annotomy.dimse.status import Status, status_of
from annotomy.errors import Problem
from annotomy.remotes.moving import ExpectedMove, expected_move
from annotomy.services import Services

log = structlog.get_logger(__name__)


def instance_head(context: AcceptedContext, command: Command) -> bytes:
    """Preamble and file meta information of what this C-STORE-RQ brings."""
    return file_head(
        sop_class_uid=_ascii(command.get(E.AFFECTED_SOP_CLASS_UID)) or context.abstract_syntax,
        sop_instance_uid=_ascii(command.get(E.AFFECTED_SOP_INSTANCE_UID)),
        transfer_syntax_uid=context.transfer_syntax,
    )


async def store(dialogue: Dialogue, services: Services, peer: Peer, group: GroupCommit, message: Message) -> None:
    status, comment = await _store(services, peer, group, message)
    await dialogue.send(message.context.id, response_to(message.command, status, comment=comment))


async def _store(services: Services, peer: Peer, group: GroupCommit, message: Message) -> tuple[int, str]:
    data_set, command = message.data_set, message.command
    if data_set is None:
        return Status.CANNOT_UNDERSTAND, "no data set"
    if not peer.may_store:
        return Status.NOT_AUTHORIZED, "this AE may not store"
    if data_set.failure is not None:
        return Status.OUT_OF_RESOURCES, "the instance could not be written"
    if data_set.too_large:
        return Status.OUT_OF_RESOURCES, "the instance is over the limit"
    announced = command.get(E.AFFECTED_SOP_CLASS_UID, ""), command.get(E.AFFECTED_SOP_INSTANCE_UID, "")
    in_memory = data_set.data() if data_set.path is None else None
    move = await _move(services, peer, command)
    actor, project_id = (peer.actor, peer.actor.sole_project_id) if move is None else (move.actor, move.project_id)
    incoming = Incoming("", data=in_memory, path=data_set.path, announced=announced, among=move)
    try:
        outcome = await group.store(actor, project_id, incoming)
    except Problem as problem:
        return status_of(problem), problem.title
    except OSError as error:
        log.warning("dimse.store_failed", reason=type(error).__name__, errno=error.errno)
        return Status.OUT_OF_RESOURCES, "the instance could not be written"
    if outcome.problem is not None:
        return status_of(outcome.problem), outcome.problem.title
    return Status.SUCCESS, ""


async def _move(services: Services, peer: Peer, command: Command) -> ExpectedMove | None:
    """The retrieval of ours that this is a part of (PS3.7 9.1.1.1: such a request names the C-MOVE that caused it)."""
    message_id = command.get(E.MOVE_ORIGINATOR_MESSAGE_ID)
    if message_id is None:
        return None
    async with services.db.read(SYSTEM) as tx:
        return await expected_move(tx, peer.ae_title, message_id)


def _ascii(text: str | None) -> str:
    return (text or "").encode("ascii", "replace").decode()[:64]
