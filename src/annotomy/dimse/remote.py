"""A remote over DIMSE: C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE and storage commitment as SCU (PS3.4 A, B, C, J).

On the same upper layer as the listener: no thread, PDU lengths checked before any buffer, memory within one budget. Each operation
has an association of its own, since a PACS that restarts takes the idle ones with it.
"""

import asyncio
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from annotomy.archive.retrieve import InstanceLocation
from annotomy.archive.store import Incoming
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.dimse.command import E, Field, response_to
from annotomy.dimse.commitment import REQUEST_COMMITMENT, WELL_KNOWN_INSTANCE, read_result
from annotomy.dimse.dialogue import PENDING, Dialogue, Message, Spool
from annotomy.dimse.identifiers import UTF_8, read_data_set, write_data_set
from annotomy.dimse.incoming_data import MemoryBudget
from annotomy.dimse.negotiation import (
    EXPLICIT,
    IMPLICIT,
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    is_storage,
)
from annotomy.dimse.pdu import MAX_CONTEXTS, ProposedContext, Role
from annotomy.dimse.peers import Destination
from annotomy.dimse.requestor import NoAssociation, associate
from annotomy.dimse.retrieve import prepare_each, proposals
from annotomy.dimse.status import Status
from annotomy.dimse.store import instance_head
from annotomy.dimse.upper_layer import AssociationEnded, Deadlines
from annotomy.errors import BadRequest
from annotomy.http.egress import Egress, EgressFailed
from annotomy.remotes.addresses import DimseAddress
from annotomy.remotes.dicomweb import tls_context
from annotomy.remotes.errors import RemoteFailed, RemoteRefused, RemoteUnreadable
from annotomy.remotes.remote_archive import (
    KEYWORDS,
    CommitmentResult,
    Found,
    InstanceName,
    Level,
    Remote,
    Sent,
    checked_rows,
)
from annotomy.services import Services

ANSWER_S = 60.0
"""For one answer to a query; for a promise to be taken."""
QUERY_S = 180.0
"""For a whole query: a C-FIND tells one match after the other."""
STORE_S = 300.0
"""For the other side to store one instance, whatever its size."""
SUBOPERATIONS_S = 3600.0
"""For the answers to a C-MOVE: some remotes tell nothing before the end."""
RESULT_S = 5.0
"""For the result of a commitment on the same association; most remotes bring it later, on one of their own."""
IDLE_S = 120.0
BUDGET_BYTES = 64 << 20
"""Answers and instances in memory, of one association."""
MAX_STRAYS = 16
"""Instances that were not asked for: after these we stop listening."""
UIDS_AT_ONCE = 100
"""In one identifier: a list of UIDs that every remote takes."""
_LEVELS: dict[Level, str] = {"study": "STUDY", "series": "SERIES", "instance": "IMAGE"}
_COMPRESSED = tuple(
    f"1.2.840.10008.1.2.{tail}"
    for tail in ("4.70", "4.90", "4.80", "5", "4.50", "4.51", "4.57", "4.91", "4.81", "4.201", "4.202", "4.203")
)
_COMMON_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{tail}"
    for tail in ("2", "2.1", "4", "4.1", "1", "1.1", "1.2", "6.1", "3.1", "7", "7.4", "12.1", "12.2", "20", "128", "130", "66.4",
                 "66.7", "88.11", "88.22", "88.33", "88.34", "88.59", "11.1", "104.1", "481.1", "481.2", "481.3", "481.5")
)  # fmt: skip
"""Proposed where the remote did not tell the classes of what we want."""


class DimseRemote:
    def __init__(self, services: Services, remote: Remote) -> None:
        assert isinstance(remote.address, DimseAddress)
        self._services = services
        self._address = remote.address
        self.promises = remote.address.commitment
        self.moves = remote.address.retrieve == "move"
        self._ours = remote.address.calling_ae_title or services.settings.dimse.ae_title

    async def echo(self) -> None:
        async with self._associate([ProposedContext(1, VERIFICATION, (EXPLICIT, IMPLICIT))]) as dialogue:
            command: dict[int, Any] = {E.COMMAND_FIELD: int(Field.C_ECHO_RQ), E.AFFECTED_SOP_CLASS_UID: VERIFICATION}
            _require_success(await dialogue.request(1, command, None, timeout_s=ANSWER_S))

    async def query(self, level: Level, match: Mapping[str, str], *, limit: int) -> Found:
        try:
            async with asyncio.timeout(QUERY_S), self._associate(_contexts(STUDY_ROOT_FIND)) as dialogue:
                rows, unreadable, complete = await self._find(dialogue, level, match, limit)
        except TimeoutError as error:
            raise RemoteFailed("The remote took too long.") from error
        good, malformed = checked_rows(level, match, rows)
        return Found(good, complete, malformed + unreadable)

    async def _find(
        self, dialogue: Dialogue, level: Level, match: Mapping[str, str], limit: int
    ) -> tuple[list[dict[str, Any]], int, bool]:
        context = _only(dialogue)
        identifier = write_data_set(_identifier(level, match), dialogue.contexts[context].transfer_syntax)
        command: dict[int, Any] = {
            E.COMMAND_FIELD: int(Field.C_FIND_RQ), E.AFFECTED_SOP_CLASS_UID: STUDY_ROOT_FIND, E.PRIORITY: 0,
        }  # fmt: skip
        rows, unreadable = list[dict[str, Any]](), 0
        async with aclosing(dialogue.responses(context, command, identifier, timeout_s=ANSWER_S)) as answers:
            async for answer in answers:
                if answer.command.get(E.STATUS) not in PENDING:
                    _require_success(answer)
                    break
                row = _row(answer)
                if row is None:
                    unreadable += 1
                elif len(rows) < limit:
                    rows.append(row)
                else:
                    await dialogue.cancel(context, command[E.MESSAGE_ID])
                    return rows, unreadable, False
        return rows, unreadable, True

    # -- instances come ----------------------------------------------------------------------------------------------

    async def retrieve(self, wanted: Sequence[InstanceName], whole_series: bool) -> AsyncGenerator[Incoming]:
        """C-GET. The remote is told that an instance has come when its bytes are kept: whether all came is counted afterwards."""
        for part in [wanted] if whole_series else _chunks(wanted):
            async with aclosing(self._get(part, whole_series)) as files:
                async for file in files:
                    yield file

    async def _get(self, wanted: Sequence[InstanceName], whole_series: bool) -> AsyncGenerator[Incoming]:
        coming = _Coming()
        classes = sorted({one.sop_class_uid for one in wanted if is_storage(one.sop_class_uid)}) or _COMMON_CLASSES
        roles = tuple(Role(one, scu=False, scp=True) for one in classes)
        settings = self._services.settings
        spool = Spool(settings.spool_dir, settings.limits.instance_bytes, instance_head)
        number = 0
        async with self._associate(
            _get_contexts(classes), roles=roles, spool=spool, on_request=coming.take
        ) as dialogue:
            coming.dialogue = dialogue
            asking = asyncio.create_task(coming.ask(_get_answers(dialogue, wanted, whole_series)))
            try:
                while (item := await coming.queue.get()) is not None:
                    message, taken = item
                    number += 1
                    if number > len(wanted) + MAX_STRAYS:
                        raise RemoteUnreadable("The remote sends more than it was asked for.")
                    yield _incoming(message, number)
                    taken.set()
                await asking
            finally:
                coming.close()
                asking.cancel()
                await asyncio.wait([asking])

    async def move(self, wanted: Sequence[InstanceName], whole_series: bool, *, message_id: int) -> None:
        for part in [wanted] if whole_series else _chunks(wanted):
            async with self._associate(_contexts(STUDY_ROOT_MOVE)) as dialogue:
                context = _only(dialogue)
                command: dict[int, Any] = {
                    E.COMMAND_FIELD: int(Field.C_MOVE_RQ), E.AFFECTED_SOP_CLASS_UID: STUDY_ROOT_MOVE, E.PRIORITY: 0,
                    E.MOVE_DESTINATION: self._ours,
                }  # fmt: skip
                identifier = _wanted(part, whole_series, dialogue.contexts[context].transfer_syntax)
                answers = dialogue.responses(
                    context, command, identifier, timeout_s=SUBOPERATIONS_S, message_id=message_id
                )
                async with aclosing(answers):
                    async for answer in answers:
                        _require_suboperations(answer)

    # -- instances go ------------------------------------------------------------------------------------------------

    async def store(self, instances: Sequence[InstanceLocation]) -> AsyncGenerator[Sent]:
        locations = list(instances)
        async with self._associate(proposals(locations)) as dialogue:
            contexts = list(dialogue.contexts.values())
            async with aclosing(prepare_each(self._services, locations, contexts)) as prepared:
                async for at, context, data_set in prepared:
                    if context is None or data_set is None:
                        yield Sent(at.sop_instance_uid, "the remote takes neither its class nor its transfer syntax")
                        continue
                    command: dict[int, Any] = {
                        E.COMMAND_FIELD: int(Field.C_STORE_RQ),
                        E.AFFECTED_SOP_CLASS_UID: at.sop_class_uid,
                        E.AFFECTED_SOP_INSTANCE_UID: at.sop_instance_uid,
                        E.PRIORITY: 0,
                    }
                    answer = await dialogue.request(context.id, command, data_set, timeout_s=STORE_S)
                    yield _sent(at.sop_instance_uid, answer.command.get(E.STATUS, Status.PROCESSING_FAILURE))

    async def ask_commitment(
        self, transaction_uid: str, references: Sequence[tuple[str, str]]
    ) -> CommitmentResult | None:
        result: asyncio.Future[CommitmentResult] = asyncio.get_running_loop().create_future()
        held: list[Dialogue] = []

        async def take(message: Message) -> None:
            status = Status.UNRECOGNIZED_OPERATION
            try:
                found = read_result(message)
            except BadRequest:
                found, status = None, Status.PROCESSING_FAILURE
            if found is not None:
                status = Status.SUCCESS
                if found[0] == transaction_uid and not result.done():
                    result.set_result(CommitmentResult(frozenset(found[1]), found[2]))
            await held[0].send(message.context.id, response_to(message.command, status))

        async with self._associate(_contexts(STORAGE_COMMITMENT), on_request=take) as dialogue:
            held.append(dialogue)
            context = _only(dialogue)
            asked = Dataset()
            asked.TransactionUID = transaction_uid
            asked.ReferencedSOPSequence = [_reference(*one) for one in references]
            command: dict[int, Any] = {
                E.COMMAND_FIELD: int(Field.N_ACTION_RQ),
                E.REQUESTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
                E.REQUESTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
                E.ACTION_TYPE_ID: REQUEST_COMMITMENT,
            }
            data_set = write_data_set(asked, dialogue.contexts[context].transfer_syntax)
            _require_success(await dialogue.request(context, command, data_set, timeout_s=ANSWER_S))
            await asyncio.wait([result], timeout=RESULT_S)
        return result.result() if result.done() else None

    # -- associations ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _associate(
        self,
        contexts: Sequence[ProposedContext],
        *,
        roles: tuple[Role, ...] = (),
        spool: Spool | None = None,
        on_request: Callable[[Message], Coroutine[Any, Any, None]] | None = None,
    ) -> AsyncGenerator[Dialogue]:
        """To the checked address. Raises EgressRefused for one that may not be called, RemoteFailed for all else."""
        address = self._address
        try:
            host = await Egress(self._services.settings.http.egress_allow).address_of(
                address.host, address.port, encrypted=address.tls
            )
            async with associate(
                Destination(address.ae_title, str(host), address.port),
                calling=self._ours,
                contexts=contexts,
                roles=roles,
                budget=MemoryBudget(BUDGET_BYTES),
                deadlines=Deadlines(idle_s=IDLE_S if spool else max(STORE_S, SUBOPERATIONS_S)),
                tls=tls_context(address) if address.tls else None,
                server_name=address.host,
                spool=spool,
                on_request=on_request,
            ) as dialogue:
                if not dialogue.contexts:
                    raise RemoteRefused("The remote does not offer this service.")
                yield dialogue
        except NoAssociation as error:
            kind = RemoteRefused if error.rejected else RemoteFailed
            raise kind(f"The remote cannot be talked to: {error}.") from error
        except AssociationEnded as error:
            raise RemoteFailed("The remote ended the association.") from error
        except EgressFailed as error:
            raise RemoteFailed(error.detail) from error


def open_dimse(services: Services, remote: Remote) -> DimseRemote:
    return DimseRemote(services, remote)


class _Coming:
    """Instances that come back on the association on which they were asked for: one at a time, answered when it is used."""

    dialogue: Dialogue

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[Message, asyncio.Event] | None] = asyncio.Queue()
        self._open = True
        self._waiting: set[asyncio.Event] = set()

    async def take(self, message: Message) -> None:
        command, data_set = message.command, message.data_set
        status = Status.SUCCESS
        if command[E.COMMAND_FIELD] != Field.C_STORE_RQ or not is_storage(message.context.abstract_syntax):
            status = Status.UNRECOGNIZED_OPERATION
        elif data_set is None or data_set.too_large or data_set.failure is not None or not self._open:
            status = Status.OUT_OF_RESOURCES
        else:
            taken = asyncio.Event()
            self._waiting.add(taken)
            self.queue.put_nowait((message, taken))
            await taken.wait()
            self._waiting.discard(taken)
        await self.dialogue.send(message.context.id, response_to(command, status))

    async def ask(self, answers: AsyncGenerator[Message]) -> None:
        """The operation itself; its end ends the queue."""
        try:
            async with aclosing(answers):
                async for answer in answers:
                    _require_suboperations(answer)
        finally:
            self.queue.put_nowait(None)

    def close(self) -> None:
        self._open = False
        for taken in self._waiting:
            taken.set()


def _get_answers(dialogue: Dialogue, wanted: Sequence[InstanceName], whole_series: bool) -> AsyncGenerator[Message]:
    context = next((one for one in dialogue.contexts.values() if one.abstract_syntax == STUDY_ROOT_GET), None)
    if context is None:
        raise RemoteRefused("The remote does not offer C-GET.")
    command: dict[int, Any] = {
        E.COMMAND_FIELD: int(Field.C_GET_RQ),
        E.AFFECTED_SOP_CLASS_UID: STUDY_ROOT_GET,
        E.PRIORITY: 0,
    }
    return dialogue.responses(
        context.id, command, _wanted(wanted, whole_series, context.transfer_syntax), timeout_s=SUBOPERATIONS_S
    )


def _incoming(message: Message, number: int) -> Incoming:
    data_set, command = message.data_set, message.command
    assert data_set is not None, "what has none was answered before"
    announced = command.get(E.AFFECTED_SOP_CLASS_UID, ""), command.get(E.AFFECTED_SOP_INSTANCE_UID, "")
    in_memory = data_set.data() if data_set.path is None else None
    return Incoming(f"instance {number}", data=in_memory, path=data_set.path, announced=announced)


# -- identifiers ------------------------------------------------------------------------------------------------------


def _identifier(level: Level, match: Mapping[str, str]) -> Dataset:
    keys = dict.fromkeys(KEYWORDS[level], "") | dict(match)
    data_set = Dataset()
    data_set.QueryRetrieveLevel = _LEVELS[level]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a range or a wildcard is no valid value of its VR, and meant
        for keyword, value in keys.items():
            tag = tag_for_keyword(keyword)
            assert tag is not None, "keys are keywords of the standard"
            data_set.add_new(tag, dictionary_VR(tag), value or None)
    if not all(value.isascii() for value in match.values()):
        data_set.SpecificCharacterSet = UTF_8
    return data_set


def _wanted(wanted: Sequence[InstanceName], whole_series: bool, transfer_syntax: str) -> bytes:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES" if whole_series else "IMAGE"
    identifier.StudyInstanceUID = wanted[0].study_instance_uid
    identifier.SeriesInstanceUID = wanted[0].series_instance_uid
    if not whole_series:
        identifier.SOPInstanceUID = [one.sop_instance_uid for one in wanted]
    return write_data_set(identifier, transfer_syntax)


def _row(answer: Message) -> dict[str, Any] | None:
    """The answer as DICOM JSON; None for one that cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_data_set(answer).to_json_dict()
    except (BadRequest, *UNREADABLE):
        return None
    finally:
        if answer.data_set is not None:
            answer.data_set.discard()


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _chunks(wanted: Sequence[InstanceName]) -> list[Sequence[InstanceName]]:
    return [wanted[at : at + UIDS_AT_ONCE] for at in range(0, len(wanted), UIDS_AT_ONCE)]


def _contexts(abstract_syntax: str) -> list[ProposedContext]:
    return [ProposedContext(1, abstract_syntax, (EXPLICIT, IMPLICIT))]


def _get_contexts(classes: Sequence[str]) -> list[ProposedContext]:
    """Each class uncompressed, and then in one compression after the other as far as there are ids."""
    wanted = [(STUDY_ROOT_GET, (EXPLICIT, IMPLICIT)), *((one, (EXPLICIT, IMPLICIT)) for one in classes)]
    wanted += [(one, (syntax,)) for syntax in _COMPRESSED for one in classes]
    return [ProposedContext(2 * n + 1, one, syntaxes) for n, (one, syntaxes) in enumerate(wanted[:MAX_CONTEXTS])]


def _only(dialogue: Dialogue) -> int:
    return next(iter(dialogue.contexts))


# -- statuses ---------------------------------------------------------------------------------------------------------


def _require_success(answer: Message) -> None:
    status = answer.command.get(E.STATUS, Status.PROCESSING_FAILURE)
    if status == Status.SUCCESS:
        return
    kind = RemoteRefused if status in (Status.NOT_AUTHORIZED, Status.SOP_CLASS_NOT_SUPPORTED) else RemoteFailed
    raise kind(f"The remote answers with the status {status:04X}H.", remote_status=status)


def _require_suboperations(answer: Message) -> None:
    """Some that failed are found by counting what is here; an operation that failed as a whole is told."""
    status = answer.command.get(E.STATUS, Status.PROCESSING_FAILURE)
    if status not in (*PENDING, Status.SUCCESS, Status.SUBOPERATIONS_FAILED):
        raise RemoteFailed(f"The remote answers with the status {status:04X}H.", remote_status=status)


def _sent(sop_instance_uid: str, status: int) -> Sent:
    if status == Status.SUCCESS or status >> 12 == 0xB:
        return Sent(sop_instance_uid)
    passing = status >> 8 == 0xA7 or status == Status.PROCESSING_FAILURE
    return Sent(sop_instance_uid, f"refused by the remote ({status:04X}H)", passing=passing)
