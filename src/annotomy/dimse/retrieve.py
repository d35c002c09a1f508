"""C-GET and C-MOVE as SCP (PS3.4 C.4.2, C.4.3): one C-STORE sub-operation after the other, from the stored bytes.

An instance goes out as it is kept where the other side takes its transfer syntax; else it is written uncompressed; else the
sub-operation fails and is counted so.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydicom.dataset import Dataset

from annotomy.actor import SYSTEM
from annotomy.archive.downloads import admit_download
from annotomy.archive.retrieve import InstanceLocation, locate, read_instance
from annotomy.dicom.part10 import MAX_META_BYTES, data_set_start
from annotomy.dicom.transcode import TranscodeError, to_uncompressed
from annotomy.dimse.audited import note_retrieval
from annotomy.dimse.command import E, Field, response_to
from annotomy.dimse.dialogue import Dialogue, Message, Stream
from annotomy.dimse.identifiers import LEVELS, UNIQUE_KEYS, Identifier, read_identifier, write_data_set
from annotomy.dimse.incoming_data import MemoryBudget
from annotomy.dimse.negotiation import EXPLICIT, IMPLICIT, AcceptedContext
from annotomy.dimse.pdu import MAX_CONTEXTS, ProposedContext
from annotomy.dimse.peers import Peer, find_destination
from annotomy.dimse.requestor import NoAssociation, associate
from annotomy.dimse.status import Status
from annotomy.dimse.upper_layer import AssociationEnded
from annotomy.errors import BadRequest, Forbidden, NotFound
from annotomy.ops.audit_queue import AuditQueue
from annotomy.services import Services

log = structlog.get_logger(__name__)

WHOLE_BYTES = 16 << 20
"""Up to this size an instance is read while the one before it is sent; larger ones are streamed."""
ANSWER_S = 300.0
"""For the other side to store one instance, whatever its size."""
MAX_COUNT = 0xFFFF
"""The numbers of sub-operations are US; more than this is told as this."""


@dataclass
class _Progress:
    remaining: int
    completed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list[str])

    def counts(self, *, with_remaining: bool) -> dict[int, Any]:
        counts: dict[int, Any] = {
            E.COMPLETED: min(self.completed, MAX_COUNT),
            E.FAILED: min(len(self.failed_uids), MAX_COUNT),
            E.WARNING: min(self.warning, MAX_COUNT),
        }
        if with_remaining:
            counts[E.REMAINING] = min(self.remaining, MAX_COUNT)
        return counts

    @property
    def status(self) -> Status:
        if self.failed_uids and not self.completed and not self.warning:
            return Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        return Status.SUBOPERATIONS_FAILED if self.failed_uids or self.warning else Status.SUCCESS


async def get(dialogue: Dialogue, services: Services, peer: Peer, message: Message, audit: AuditQueue) -> None:
    identifier, locations = await _locate(services, peer, message)
    await _admit(services, peer, locations)
    await note_retrieval(audit, peer, identifier, locations, "C-GET", peer.ae_title)
    contexts = [context for context in dialogue.contexts.values() if context.requestor_is_scp]
    progress = await _send_all(dialogue, contexts, services, message, dialogue, locations, originator=None)
    await _finish(dialogue, message, progress)


async def move(
    dialogue: Dialogue, services: Services, peer: Peer, message: Message, budget: MemoryBudget, audit: AuditQueue
) -> None:
    title = message.command.get(E.MOVE_DESTINATION, "")
    async with services.db.read(SYSTEM) as tx:
        destination = await find_destination(tx, title)
    if destination is None:
        log.warning("dimse.move_destination_unknown", ae_title=peer.ae_title)
        await dialogue.send(
            message.context.id,
            response_to(message.command, Status.MOVE_DESTINATION_UNKNOWN, comment="unknown destination"),
        )
        return
    identifier, locations = await _locate(services, peer, message)
    await _admit(services, peer, locations)
    await note_retrieval(audit, peer, identifier, locations, "C-MOVE", destination.ae_title)
    proposed = proposals(locations)
    ours = services.settings.dimse.ae_title
    try:
        async with associate(destination, calling=ours, contexts=proposed, budget=budget) as target:
            progress = await _send_all(
                target, list(target.contexts.values()), services, message, dialogue, locations, originator=peer.ae_title
            )
    except NoAssociation as failure:
        log.warning("dimse.move_failed", ae_title=destination.ae_title, reason=str(failure))
        progress = _Progress(0, failed_uids=[at.sop_instance_uid for at in locations])
    await _finish(dialogue, message, progress)


async def _locate(services: Services, peer: Peer, message: Message) -> tuple[Identifier, list[InstanceLocation]]:
    """The identifier, and what it names and the peer's principal may see; nothing is no error."""
    if not peer.may_retrieve:
        raise Forbidden("This AE may not retrieve.")
    identifier = read_identifier(message)
    wanted: dict[str, list[str]] = {}
    for level in LEVELS[: LEVELS.index(identifier.level) + 1]:
        value = identifier.keys.get(UNIQUE_KEYS[level], "")
        if value and not set(value) & set("*?"):
            wanted[level] = value.split("\\")
    if identifier.level not in wanted:
        raise BadRequest("The unique key of the level is missing (PS3.4 C.4.2.2.1).")
    patients = wanted.get("PATIENT", [None])
    try:
        async with services.db.read(peer.actor) as tx:
            return identifier, await locate(
                tx,
                patient_id=patients[0],
                study_instance_uid=wanted.get("STUDY"),
                series_instance_uid=wanted.get("SERIES"),
                sop_instance_uid=wanted.get("IMAGE"),
            )
    except NotFound:
        return identifier, []


async def _admit(services: Services, peer: Peer, locations: list[InstanceLocation]) -> None:
    """A single instance is no bulk. Raises ReasonRequired where the peer was registered without a purpose."""
    if len(locations) > 1:
        await admit_download(services, peer.actor, sorted({at.study_instance_uid for at in locations}))


async def _send_all(
    target: Dialogue,
    contexts: list[AcceptedContext],
    services: Services,
    message: Message,
    asker: Dialogue,
    locations: list[InstanceLocation],
    *,
    originator: str | None,
) -> _Progress:
    """Tells the asker after each; ends early when the asker cancels or the target goes."""
    progress = _Progress(len(locations))
    prepared = prepare_each(services, locations, contexts)
    try:
        async for location, context, data_set in prepared:
            if message.cancelled:
                break
            progress.remaining -= 1
            await _send_one(target, progress, location, context, data_set, message, originator)
            pending = response_to(message.command, Status.PENDING) | progress.counts(with_remaining=True)
            await asker.send(message.context.id, pending)
    finally:
        await prepared.aclose()
    return progress


async def _send_one(
    target: Dialogue,
    progress: _Progress,
    location: InstanceLocation,
    context: AcceptedContext | None,
    data_set: "bytes | Stream | None",
    message: Message,
    originator: str | None,
) -> None:
    if context is None or data_set is None:
        progress.failed_uids.append(location.sop_instance_uid)
        return
    command: dict[int, Any] = {
        E.COMMAND_FIELD: int(Field.C_STORE_RQ),
        E.AFFECTED_SOP_CLASS_UID: location.sop_class_uid,
        E.AFFECTED_SOP_INSTANCE_UID: location.sop_instance_uid,
        E.PRIORITY: message.command.get(E.PRIORITY, 0),
    }
    if originator is not None:
        command[E.MOVE_ORIGINATOR_AE_TITLE] = originator
        command[E.MOVE_ORIGINATOR_MESSAGE_ID] = message.command[E.MESSAGE_ID]
    try:
        answer = await target.request(context.id, command, data_set, timeout_s=ANSWER_S)
    except AssociationEnded:
        progress.failed_uids.append(location.sop_instance_uid)
        return
    status = answer.command.get(E.STATUS, Status.PROCESSING_FAILURE)
    if status == Status.SUCCESS:
        progress.completed += 1
    elif status >> 12 == 0xB:
        progress.warning += 1
    else:
        progress.failed_uids.append(location.sop_instance_uid)


_Prepared = tuple[InstanceLocation, AcceptedContext | None, "bytes | Stream | None"]


async def prepare_each(
    services: Services, locations: list[InstanceLocation], contexts: list[AcceptedContext]
) -> AsyncGenerator[_Prepared]:
    """In order; the next one is read while the present one is sent."""
    ahead: asyncio.Task[_Prepared] | None = None
    try:
        for number, location in enumerate(locations):
            present = ahead or asyncio.create_task(_prepare(services, location, contexts))
            following = locations[number + 1] if number + 1 < len(locations) else None
            ready = await present
            ahead = None if following is None else asyncio.create_task(_prepare(services, following, contexts))
            yield ready
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait([ahead])


async def _prepare(services: Services, location: InstanceLocation, contexts: list[AcceptedContext]) -> _Prepared:
    context = choose_context(contexts, location)
    if context is None:
        return location, None, None
    if context.transfer_syntax != location.transfer_syntax_uid:
        file = await read_instance(services, location)
        try:
            return location, context, await asyncio.to_thread(to_uncompressed, file, context.transfer_syntax)
        except TranscodeError as failure:
            log.warning("dimse.transcode_failed", sop_instance_uid=location.sop_instance_uid, reason=str(failure))
            return location, None, None
    if location.blob_size <= WHOLE_BYTES:
        file = await read_instance(services, location)
        return location, context, file[data_set_start(file) :]
    start = data_set_start(await services.blobs.read(location.blob_address, 0, MAX_META_BYTES))
    pieces = services.blobs.stream(location.blob_address, start)
    return location, context, Stream(location.blob_size - start, pieces)


def choose_context(contexts: Iterable[AcceptedContext], location: InstanceLocation) -> AcceptedContext | None:
    """One that takes the instance as it is kept, else one that takes it uncompressed."""
    of_class = [context for context in contexts if context.abstract_syntax == location.sop_class_uid]
    for syntax in (location.transfer_syntax_uid, EXPLICIT, IMPLICIT):
        for context in of_class:
            if context.transfer_syntax == syntax:
                return context
    return None


def proposals(locations: list[InstanceLocation]) -> list[ProposedContext]:
    """What is kept as it is kept, and each class uncompressed, as far as there are ids."""
    kept = dict.fromkeys((at.sop_class_uid, at.transfer_syntax_uid) for at in locations)
    classes = dict.fromkeys(at.sop_class_uid for at in locations)
    wanted = [(sop_class, (syntax,)) for sop_class, syntax in kept if syntax not in (EXPLICIT, IMPLICIT)]
    wanted += [(sop_class, (syntax,)) for sop_class in classes for syntax in (EXPLICIT, IMPLICIT)]
    return [
        ProposedContext(2 * number + 1, sop_class, syntaxes)
        for number, (sop_class, syntaxes) in enumerate(wanted[:MAX_CONTEXTS])
    ]


async def _finish(dialogue: Dialogue, message: Message, progress: _Progress) -> None:
    cancelled = message.cancelled and progress.remaining > 0
    status = Status.CANCEL if cancelled else progress.status
    data_set = None
    if progress.failed_uids:
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = progress.failed_uids
        data_set = write_data_set(failed, message.context.transfer_syntax)
    response = response_to(message.command, status, data_set=data_set is not None)
    await dialogue.send(message.context.id, response | progress.counts(with_remaining=cancelled), data_set)
