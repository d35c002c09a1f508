"""Storage commitment, push model, as SCP (PS3.4 J.3): what is kept is read and hashed again before we promise it.

A peer that listens (host and port known) gets the result by a job, which survives restarts and tries again; another gets
it on the association on which it asked.
"""

from typing import Any, ClassVar

import structlog
from blake3 import blake3
from pydicom.dataset import Dataset

from annotomy.actor import Actor
from annotomy.archive.retrieve import InstanceLocation, locate
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.dimse.command import E, Field, response_to
from annotomy.dimse.dialogue import Dialogue, Message
from annotomy.dimse.identifiers import read_data_set, write_data_set
from annotomy.dimse.incoming_data import MemoryBudget
from annotomy.dimse.negotiation import EXPLICIT, IMPLICIT, STORAGE_COMMITMENT
from annotomy.dimse.pdu import ProposedContext, Role
from annotomy.dimse.peers import Peer, find_destination, find_peer
from annotomy.dimse.requestor import NoAssociation, associate
from annotomy.dimse.status import Status
from annotomy.dimse.upper_layer import AssociationEnded
from annotomy.errors import BadRequest, Forbidden, NotFound
from annotomy.events import Event, emit
from annotomy.jobs.handlers import HandlerSpec, JobContext, Reject, Retry
from annotomy.jobs.queue import Job, enqueue
from annotomy.remotes.commitment import apply_result
from annotomy.remotes.remote_archive import CommitmentResult
from annotomy.services import Services

log = structlog.get_logger(__name__)

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
MAX_REFERENCES = 20_000
"""Instances of one request: a study of the largest kind."""
ANSWER_S = 60.0


class ReportCommitment(Job, frozen=True):
    """Verify the instances and tell the peer."""

    kind: ClassVar[str] = "report-storage-commitment"
    ae_title: str
    transaction_uid: str
    references: list[tuple[str, str]]
    """SOP class and SOP instance UIDs."""


async def commit(dialogue: Dialogue, services: Services, peer: Peer, message: Message) -> None:
    """N-ACTION: takes the request; the result follows as N-EVENT-REPORT."""
    command = message.command
    if command.get(E.REQUESTED_SOP_INSTANCE_UID) != WELL_KNOWN_INSTANCE:
        await dialogue.send(message.context.id, response_to(command, Status.NO_SUCH_OBJECT_INSTANCE))
        return
    if command.get(E.ACTION_TYPE_ID) != REQUEST_COMMITMENT:
        await dialogue.send(message.context.id, response_to(command, Status.NO_SUCH_ACTION))
        return
    if not peer.may_store:
        raise Forbidden("This AE may not store.")
    job = _read_request(peer, message)
    async with services.db.write(peer.actor) as tx:
        destination = await find_destination(tx, peer.ae_title)
        if destination is not None:
            await enqueue(tx, job)
    await dialogue.send(
        message.context.id, response_to(command, Status.SUCCESS) | {E.ACTION_TYPE_ID: REQUEST_COMMITMENT}
    )
    if destination is None:
        await _report(dialogue, message.context.id, services, peer.actor, job)


async def report_commitment(services: Services, job: ReportCommitment, context: JobContext) -> None:
    async with services.db.read(context.asker) as tx:
        destination = await find_destination(tx, job.ae_title)
        peer = await find_peer(tx, job.ae_title, None)
    if destination is None or peer is None:
        raise Reject(NotFound("The peer that asked is not known any more."))
    proposed = [ProposedContext(1, STORAGE_COMMITMENT, (EXPLICIT, IMPLICIT))]
    # We call, yet are the SCP of the class: that role has to be asked for (PS3.4 J.3.3).
    roles = (Role(STORAGE_COMMITMENT, scu=False, scp=True),)
    ours = services.settings.dimse.ae_title
    try:
        async with associate(
            destination, calling=ours, contexts=proposed, roles=roles, budget=MemoryBudget()
        ) as dialogue:
            if not dialogue.contexts:
                raise Retry("the peer does not take results")
            await _report(dialogue, 1, services, peer.actor, job)
    except (NoAssociation, AssociationEnded) as error:
        raise Retry(str(error)) from error
    async with services.db.write(context.asker) as tx:
        event = Event(
            type="storage_commitment.reported",
            object_kind="dimse_peer",
            object_id=job.ae_title,
            data={"instances": len(job.references)},
        )
        await emit(tx, event)
        await context.finish(tx)


REPORT = HandlerSpec(ReportCommitment, report_commitment)


def _read_request(peer: Peer, message: Message) -> ReportCommitment:
    asked = read_data_set(message)
    try:
        references = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in asked.ReferencedSOPSequence
        ]
        transaction_uid = str(asked.TransactionUID)
    except UNREADABLE as error:
        raise BadRequest("The request lacks its transaction UID or its list of instances.") from error
    if not 1 <= len(references) <= MAX_REFERENCES:
        raise BadRequest("The request names no instance, or too many.")
    return ReportCommitment(peer.ae_title, transaction_uid, references)


async def take_result(dialogue: Dialogue, services: Services, peer: Peer, message: Message) -> None:
    """N-EVENT-REPORT, as SCU: a remote tells what it promises of what we sent it (remotes/commitment.py)."""
    found = read_result(message)
    if found is None:
        raise BadRequest("This is no result of storage commitment.")
    transaction_uid, committed, failed = found
    async with services.db.write(peer.actor) as tx:
        result = CommitmentResult(frozenset(committed), failed)
        known = await apply_result(tx, transaction_uid, result, ae_title=peer.ae_title)
    status = Status.SUCCESS if known else Status.NO_SUCH_OBJECT_INSTANCE
    answer = response_to(message.command, status) | {E.EVENT_TYPE_ID: message.command[E.EVENT_TYPE_ID]}
    await dialogue.send(message.context.id, answer)


def read_result(message: Message) -> tuple[str, list[str], dict[str, int]] | None:
    """Of an N-EVENT-REPORT that tells us a result (PS3.4 J.3.3): transaction, what is committed, Failure Reason of the rest.

    None for any other message. Raises BadRequest for a result that cannot be read.
    """
    command = message.command
    if command[E.COMMAND_FIELD] != Field.N_EVENT_REPORT_RQ or command.get(E.EVENT_TYPE_ID) not in (
        ALL_COMMITTED,
        SOME_FAILED,
    ):
        return None
    told = read_data_set(message)
    try:
        kept = [str(item.ReferencedSOPInstanceUID) for item in told.get("ReferencedSOPSequence") or []]
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0)
            for item in told.get("FailedSOPSequence") or []
        }
        return str(told.TransactionUID), kept, failed
    except UNREADABLE as error:
        raise BadRequest("The result cannot be read.") from error


async def _report(dialogue: Dialogue, context_id: int, services: Services, actor: Actor, job: ReportCommitment) -> None:
    result, failed = await verify(services, actor, job)
    command: dict[int, Any] = {
        E.COMMAND_FIELD: int(Field.N_EVENT_REPORT_RQ),
        E.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        E.AFFECTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
        E.EVENT_TYPE_ID: SOME_FAILED if failed else ALL_COMMITTED,
    }
    data_set = write_data_set(result, dialogue.contexts[context_id].transfer_syntax)
    answer = await dialogue.request(context_id, command, data_set, timeout_s=ANSWER_S)
    if answer.command.get(E.STATUS) != Status.SUCCESS:
        log.warning("dimse.commitment_not_taken", ae_title=job.ae_title, status=answer.command.get(E.STATUS))


async def verify(services: Services, actor: Actor, job: ReportCommitment) -> tuple[Dataset, int]:
    """The Event Information (PS3.4 J.3.3.1) and how many failed."""
    uids = [sop_instance_uid for _, sop_instance_uid in job.references]
    try:
        async with services.db.read(actor) as tx:
            known = {at.sop_instance_uid: at for at in reversed(await locate(tx, sop_instance_uid=uids))}
    except NotFound:
        known = {}
    kept, failed = list[Dataset](), list[Dataset]()
    for sop_class_uid, sop_instance_uid in job.references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        reason = await _reason(services, known.get(sop_instance_uid), sop_class_uid)
        if reason is None:
            kept.append(item)
        else:
            item.FailureReason = int(reason)
            failed.append(item)
    result = Dataset()
    result.TransactionUID = job.transaction_uid
    if kept:
        result.ReferencedSOPSequence = kept
    if failed:
        result.FailedSOPSequence = failed
    return result, len(failed)


async def _reason(services: Services, location: InstanceLocation | None, sop_class_uid: str) -> Status | None:
    """Why we do not promise it."""
    if location is None:
        return Status.NO_SUCH_OBJECT_INSTANCE
    if location.sop_class_uid != sop_class_uid:
        return Status.CLASS_INSTANCE_CONFLICT
    hasher = blake3()
    try:
        async for piece in services.blobs.stream(location.blob_address):
            hasher.update(piece)
    except (KeyError, OSError):
        log.exception("dimse.commitment_unreadable", sop_instance_uid=location.sop_instance_uid)
        return Status.PROCESSING_FAILURE
    if hasher.hexdigest() != location.blob_address:
        log.error("dimse.commitment_damaged", sop_instance_uid=location.sop_instance_uid)
        return Status.PROCESSING_FAILURE
    return None
