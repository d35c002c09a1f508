"""What a workitem says: DICOM JSON (PS3.18 F.2) checked as it comes in, and what may be set by whom (Table CC.2.5-3)."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from pydicom.dataset import Dataset

from annotomy.dicom.unreadable import UNREADABLE
from annotomy.errors import BadRequest
from annotomy.workitems.states import DISCONTINUED_AT, PERFORMED, PROGRESS, REASON_CODES, Json

UPS_PUSH: Final = "1.2.840.10008.5.1.4.34.6.1"
STATE, TRANSACTION, CLASS, INSTANCE, MODIFIED = "00741000", "00081195", "00080016", "00080018", "00404010"
INPUT, STUDY, SERIES = "00404021", "0020000D", "0020000E"
MAX_ATTRIBUTES_BYTES: Final = 1 << 20
"""Of one workitem as JSON; real ones have a few thousand."""
_CHOICES: Final = {
    "00741200": ("ScheduledProcedureStepPriority", frozenset({"HIGH", "MEDIUM", "LOW"})),
    "00404041": ("InputReadinessState", frozenset({"READY", "UNAVAILABLE", "INCOMPLETE"})),
}
_REQUIRED: Final = {"00741204": "ProcedureStepLabel", "00404005": "ScheduledProcedureStepStartDateTime"}
_NEVER_SET: Final = frozenset(
    {CLASS, INSTANCE, STATE, MODIFIED, "00100010", "00100020", "00100030", "00100040", "00741224"}
)
"""N-SET does not change who the workitem is about, nor what its other requests do."""


def checked(body: bytes) -> Json:
    """The one data set of a request, in the form that is kept. Raises BadRequest."""
    try:
        data: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest("The body is one data set in DICOM JSON.") from error
    item = data[0] if isinstance(data, list) and len(data) == 1 else data  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(item, dict):
        raise BadRequest("The body is one data set in DICOM JSON.")
    try:
        read = Dataset.from_json(item)  # pyright: ignore[reportUnknownArgumentType]
        found: Json = msgspec.json.decode(read.to_json())  # through text: pydicom's values are types of its own
    except UNREADABLE as error:
        raise BadRequest("The body is no data set in DICOM JSON.") from error
    if any(tag.startswith(("0000", "0002")) for tag in found):
        raise BadRequest("A data set has no elements of the groups 0000 and 0002.")
    return found


def text(attributes: Json, tag: str) -> str:
    """The first value, or nothing."""
    values = attributes.get(tag, {}).get("Value") or [""]
    return "" if values[0] is None else str(values[0])


def new_workitem(given: Json) -> Json:
    """What N-CREATE keeps of a data set (PS3.4 CC.2.5). Raises BadRequest."""
    if text(given, TRANSACTION):
        raise BadRequest("A new workitem has no Transaction UID: nobody has claimed it.")
    if text(given, STATE) != "SCHEDULED":
        raise BadRequest("A new workitem has the ProcedureStepState SCHEDULED.")  # status C309
    if any(given.get(tag, {}).get("Value") for tag in (PROGRESS, PERFORMED)):
        raise BadRequest("A new workitem has no progress and nothing performed.")
    for tag, keyword in _REQUIRED.items():
        if not text(given, tag):
            raise BadRequest(f"{keyword} is missing.")
    for tag, (keyword, words) in _CHOICES.items():
        if text(given, tag) not in words:
            raise BadRequest(f"{keyword} is one of {', '.join(sorted(words))}.")
    kept = {tag: value for tag, value in given.items() if tag not in (TRANSACTION, STATE, CLASS, INSTANCE, MODIFIED)}
    kept.setdefault("00741202", {"vr": "LO", "Value": ["worklist"]})
    kept.setdefault(PROGRESS, {"vr": "SQ"})
    kept.setdefault(PERFORMED, {"vr": "SQ"})
    return kept


def updated(kept: Json, changes: Json) -> Json:
    """What N-SET makes of it (PS3.4 CC.2.6): attributes given replace those kept. Raises BadRequest."""
    refused = sorted(_NEVER_SET & changes.keys())
    if refused:
        raise BadRequest(f"An update does not set {', '.join(refused)}.")
    for tag, (keyword, words) in _CHOICES.items():
        if tag in changes and text(changes, tag) not in words:
            raise BadRequest(f"{keyword} is one of {', '.join(sorted(words))}.")
    if any(tag in changes and not text(changes, tag) for tag in _REQUIRED):
        raise BadRequest(f"{', '.join(_REQUIRED.values())} cannot be emptied.")
    return kept | {tag: value for tag, value in changes.items() if tag != TRANSACTION}


def canceled_at(kept: Json, now: datetime, reason: Json | None = None) -> Json:
    """With the time of the cancellation where it is missing (Table CC.2.5-3), and the reason that a requester gave."""
    item = dict((kept.get(PROGRESS, {}).get("Value") or [{}])[0])
    item.setdefault(DISCONTINUED_AT, {"vr": "DT", "Value": [dicom_time(now)]})
    if reason is not None:
        for tag in ("00741238", REASON_CODES, "0074100A", "0074100C"):
            if tag in reason:
                item[tag] = reason[tag]
        # CID 9300: a procedure discontinued for a reason that was not told.
        item.setdefault(REASON_CODES, code("110513", "DCM", "Discontinued for unspecified reason"))
    return kept | {PROGRESS: {"vr": "SQ", "Value": [item]}}


def code(value: str, scheme: str, meaning: str) -> Json:
    item = {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": [scheme]},
        "00080104": {"vr": "LO", "Value": [meaning]},
    }
    return {"vr": "SQ", "Value": [item]}


def dicom_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def place_of(attributes: Json) -> tuple[str | None, str | None]:
    """The study and, where only one is named, the series that the work is about: its inputs' first."""
    items = attributes.get(INPUT, {}).get("Value") or [{}]
    first = items[0] or {}
    return text(first, STUDY) or text(attributes, STUDY) or None, (text(first, SERIES) or None) if len(
        items
    ) == 1 else None
