"""What can be done with an archive elsewhere, whichever protocol it speaks. Two implementations: DICOMweb and DIMSE.

Every failure of the other side is a `RemoteFailed`; whoever calls need not know the protocol.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from annotomy.archive.retrieve import InstanceLocation
from annotomy.archive.store import Incoming
from annotomy.dicom.scanner import is_uid
from annotomy.services import Services

Level = Literal["study", "series", "instance"]
UID_TAGS: dict[Level, str] = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
"""The unique key of each level, as DICOM JSON names it."""
KEYWORDS: dict[Level, tuple[str, ...]] = {
    "study": (
        "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID",
        "PatientBirthDate", "PatientSex", "PatientAge", "StudyID", "StudyDescription", "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
    ),
    "series": (
        "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "BodyPartExamined",
        "ProtocolName", "Laterality", "Manufacturer", "ManufacturerModelName", "StationName", "InstitutionName",
        "InstitutionalDepartmentName", "NumberOfSeriesRelatedInstances",
    ),
    "instance": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}  # fmt: skip
"""What we ask for: what people read in a list, and what rules may name."""


class InstanceName(NamedTuple):
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""
    """Empty where the remote does not tell."""


@dataclass(frozen=True, slots=True)
class Found:
    """`rows` are DICOM JSON objects with the UIDs of their level; rows without are counted, not kept."""

    rows: list[dict[str, Any]]
    complete: bool = True
    """Nothing was cut off."""
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    sop_instance_uid: str
    problem: str = ""
    """Why it was not taken: a code and a word of ours; empty when it was."""
    passing: bool = False
    """The reason may be gone later."""


class RemoteArchive(Protocol):
    async def echo(self) -> None:
        """Returns when the remote answers as it should."""
        ...

    async def query(self, level: Level, match: Mapping[str, str], *, limit: int) -> Found:
        """The first `limit` objects that match; keys are keywords. Below study level the UIDs above are part of `match`."""
        ...

    def retrieve(self, wanted: Sequence[InstanceName], whole_series: bool) -> AsyncGenerator[Incoming]:
        """Instances of one series as files, each to be used before the next is asked for. The remote may send others or fewer."""
        ...

    def store(self, instances: Sequence[InstanceLocation]) -> AsyncGenerator[Sent]:
        """What became of each instance that the remote spoke of."""
        ...


@runtime_checkable
class PromisesStorage(Protocol):
    """A remote that can be asked for storage commitment (PS3.4 J), where `promises` says that it is."""

    promises: bool

    async def ask_commitment(
        self, transaction_uid: str, references: Sequence[tuple[str, str]]
    ) -> "CommitmentResult | None":
        """Asks for a promise about (SOP class, SOP instance) UIDs. None: the result comes later, to our listener."""
        ...


@runtime_checkable
class SendsToListener(Protocol):
    """A remote that brings instances on an association of its own (C-MOVE), where `moves` says that it does."""

    moves: bool

    async def move(self, wanted: Sequence[InstanceName], whole_series: bool, *, message_id: int) -> None:
        """Returns when the remote says that it has sent what it could. `message_id` tells our listener what it belongs to."""
        ...


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    committed: frozenset[str]
    failed: Mapping[str, int] = field(default_factory=dict[str, int])
    """Failure Reason (0008,1197) of each."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One as the registry knows it, secrets opened."""

    id: UUID
    name: str
    kind: Literal["dicomweb", "dimse"]
    address: Any
    """`DicomwebAddress` or `DimseAddress` (addresses.py), secrets included."""


Opener = Callable[[Services, Remote], RemoteArchive]
Openers = Mapping[str, Opener]
"""How each kind is spoken to; composed in app.py."""


def value_of(row: Mapping[str, Any], tag: str) -> Any:
    """The first value of an element of DICOM JSON, or None."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return values[0] if isinstance(values, list) and values else None  # pyright: ignore[reportUnknownVariableType]


def uid_of(row: Mapping[str, Any], level: Level) -> str | None:
    value = value_of(row, UID_TAGS[level])
    return value.rstrip("\0 ") if isinstance(value, str) and is_uid(value.encode("utf-8", "replace")) else None


def checked_rows(level: Level, match: Mapping[str, str], rows: Sequence[Any]) -> tuple[list[dict[str, Any]], int]:
    """Rows that name their object and lie under the UIDs that were asked for, each once; and how many did not."""
    above: dict[Level, str] = {}
    if level != "study" and match.get("StudyInstanceUID"):
        above["study"] = match["StudyInstanceUID"]
    if level == "instance" and match.get("SeriesInstanceUID"):
        above["series"] = match["SeriesInstanceUID"]
    kept: dict[str, dict[str, Any]] = {}
    malformed = 0
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(one, dict) for one in row.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            malformed += 1
            continue
        filled: dict[str, Any] = {UID_TAGS[one]: {"vr": "UI", "Value": [uid]} for one, uid in above.items()} | row
        uid = uid_of(filled, level)
        if uid is None or any(uid_of(filled, one) != asked for one, asked in above.items()):
            malformed += 1
            continue
        if level == "instance" and uid_of(filled, "series") is None:
            malformed += 1
            continue
        kept.setdefault(uid, filled)
    return list(kept.values()), malformed
