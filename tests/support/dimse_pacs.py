"""A PACS of a test that speaks DIMSE: pynetdicom in threads on loopback, over a dictionary of instances."""

import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (
    CTImageStorage,  # pyright: ignore[reportAttributeAccessIssue] - made at run time, all of them
    StorageCommitmentPushModel,  # pyright: ignore[reportAttributeAccessIssue]
    StudyRootQueryRetrieveInformationModelFind,  # pyright: ignore[reportAttributeAccessIssue]
    StudyRootQueryRetrieveInformationModelGet,  # pyright: ignore[reportAttributeAccessIssue]
    StudyRootQueryRetrieveInformationModelMove,  # pyright: ignore[reportAttributeAccessIssue]
    Verification,  # pyright: ignore[reportAttributeAccessIssue]
)

from tests.support.dicom_listener import in_thread

PACS_TITLE = "PACS"
_KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class DimsePacs:
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    port: int = 0
    destination_port: int = 0
    """Where it brings what is moved."""
    strays: list[bytes] = field(default_factory=list[bytes])
    """Sent before what was asked for."""
    breaks_after: int | None = None
    """Instances of a C-GET, after which it aborts."""
    store_status: int = 0x0000
    commits: bool = True
    """Promises all that it holds, on the association on which it is asked."""
    asked_for_commitment: list[Dataset] = field(default_factory=list[Dataset])

    def hold(self, *files: bytes) -> None:
        for file in files:
            self.files[str(_read(file).SOPInstanceUID)] = file

    # -- handlers, in pynetdicom's threads ---------------------------------------------------------------------------

    def find(self, event: Any) -> Any:
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        seen: set[str] = set()
        for held in self._matching(asked):
            key = str(held[_KEYS[level]].value)
            if key in seen:
                continue
            seen.add(key)
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for element in asked:
                if element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
                    continue
                if element.keyword == "ModalitiesInStudy":
                    answer.ModalitiesInStudy = held.Modality
                else:
                    answer.add_new(element.tag, element.VR, held.get(element.keyword))
            answer.SpecificCharacterSet = "ISO_IR 192"
            yield 0xFF00, answer
        yield 0x0000, None

    def get(self, event: Any) -> Any:
        chosen = [*map(_read, self.strays), *self._matching(event.identifier)]
        yield len(chosen)
        for number, held in enumerate(chosen):
            if number == self.breaks_after:
                event.assoc.abort()
                return
            yield 0xFF00, held

    def move(self, event: Any) -> Any:
        yield "127.0.0.1", self.destination_port, {"contexts": self._contexts()}
        chosen = [*map(_read, self.strays), *self._matching(event.identifier)]
        yield len(chosen)
        for held in chosen:
            yield 0xFF00, held

    def store(self, event: Any) -> int:
        if self.store_status == 0x0000:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            self.files[str(event.request.AffectedSOPInstanceUID)] = buffer.getvalue()
        return self.store_status

    def action(self, event: Any) -> Any:
        asked = event.action_information
        self.asked_for_commitment.append(asked)
        if self.commits:
            told, kind = self.result_of(asked)
            event.assoc.send_n_event_report(told, kind, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        return 0x0000, None

    def result_of(self, asked: Dataset) -> tuple[Dataset, int]:
        """The event information, and whether all (1) or some (2) are committed."""
        told = Dataset()
        told.TransactionUID = asked.TransactionUID
        here = [one for one in asked.ReferencedSOPSequence if one.ReferencedSOPInstanceUID in self.files]
        lost = [one for one in asked.ReferencedSOPSequence if one.ReferencedSOPInstanceUID not in self.files]
        if here:
            told.ReferencedSOPSequence = here
        for one in lost:
            one.FailureReason = 0x0112
        if lost:
            told.FailedSOPSequence = lost
        return told, 2 if lost else 1

    def report_later(self, asked: Dataset) -> int:
        """The result, on an association of the PACS's own; the status of the answer. Blocks."""
        ae = AE(PACS_TITLE)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        association = ae.associate("127.0.0.1", self.destination_port, ae_title="ANNOTOMY", ext_neg=[role])
        assert association.is_established
        told, kind = self.result_of(asked)
        status, _ = association.send_n_event_report(told, kind, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        association.release()
        return int(status.Status)

    def _matching(self, asked: Dataset) -> list[Dataset]:
        found: list[Dataset] = []
        for file in self.files.values():
            held = _read(file)
            if all(
                self._matches(held, keyword, asked.get(keyword))
                for keyword in (*_KEYS.values(), "PatientID", "StudyDate")
            ):
                found.append(held)
        return found

    def _matches(self, held: Dataset, keyword: str, wanted: Any) -> bool:
        if not wanted:
            return True
        several: list[Any] = list(wanted) if isinstance(wanted, MultiValue) else [wanted]
        values = [str(one) for one in several]
        value = str(held[keyword].value)
        low, dash, high = values[0].partition("-")
        if keyword == "StudyDate" and dash:
            return value >= low and (not high or value <= high)
        return value in values

    def _contexts(self) -> Any:
        ae = AE()
        ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])
        return ae.requested_contexts


@asynccontextmanager
async def dimse_pacs(*files: bytes) -> AsyncGenerator[DimsePacs]:
    pacs = DimsePacs()
    pacs.hold(*files)
    ae = AE(PACS_TITLE)
    ae.require_called_aet = True
    both = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    ae.add_supported_context(Verification)
    for model in (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
        StorageCommitmentPushModel,
    ):
        ae.add_supported_context(model, both)
    ae.add_supported_context(CTImageStorage, both, scu_role=True, scp_role=True)
    handlers: Any = [
        (evt.EVT_C_FIND, pacs.find),
        (evt.EVT_C_GET, pacs.get),
        (evt.EVT_C_MOVE, pacs.move),
        (evt.EVT_C_STORE, pacs.store),
        (evt.EVT_N_ACTION, pacs.action),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    assert server.socket is not None
    pacs.port = server.socket.getsockname()[1]
    try:
        yield pacs
    finally:
        await in_thread(server.shutdown)


def _read(file: bytes) -> Dataset:
    return dcmread(io.BytesIO(file))
