"""The states of a unified procedure step and what leads from one to another: PS3.4 CC.1.1, Table CC.1.1-2, and CC.2.5.1.1.

Pure. The table below is the one that the standard prints, a row for each request and a column for each state.
"""

from enum import StrEnum
from typing import Any, Final, Literal

Json = dict[str, Any]


class State(StrEnum):
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL: Final = frozenset({State.COMPLETED, State.CANCELED})
Request = Literal["claim", "schedule", "complete", "cancel", "request-cancel"]
Step = State | int | Literal["tell"]
"""The new state, a status code, or that the performer is told and decides."""

_S, _P, _D, _X = State
TRANSITIONS: Final[dict[tuple[Request, bool], dict[State, Step]]] = {
    ("claim", True): {_S: _P, _P: 0xC302, _D: 0xC300, _X: 0xC300},
    ("claim", False): {_S: 0xC301, _P: 0xC301, _D: 0xC301, _X: 0xC301},
    ("schedule", True): {_S: 0xC303, _P: 0xC303, _D: 0xC303, _X: 0xC303},
    ("schedule", False): {_S: 0xC303, _P: 0xC303, _D: 0xC303, _X: 0xC303},
    ("complete", True): {_S: 0xC310, _P: _D, _D: 0xB306, _X: 0xC300},
    ("complete", False): {_S: 0xC301, _P: 0xC301, _D: 0xC301, _X: 0xC301},
    ("cancel", True): {_S: 0xC310, _P: _X, _D: 0xC300, _X: 0xB304},
    ("cancel", False): {_S: 0xC301, _P: 0xC301, _D: 0xC301, _X: 0xC301},
    ("request-cancel", True): {_S: _X, _P: "tell", _D: 0xC311, _X: 0xB304},
}
"""(what is asked, with the correct Transaction UID?) -> state now -> what becomes of it. Final states have conditions more."""

REQUESTS: Final[dict[str, Request]] = {
    "IN PROGRESS": "claim",
    "SCHEDULED": "schedule",
    "COMPLETED": "complete",
    "CANCELED": "cancel",
}
WORDS: Final = {
    0xC300: "The workitem is in a final state and stays in it.",
    0xC301: "The Transaction UID is missing or is not that of the claim.",
    0xC302: "The workitem is claimed already.",
    0xC303: "A workitem goes to SCHEDULED only when it is created.",
    0xC304: "The workitem does not yet say what its final state demands",
    0xC310: "The workitem is not IN PROGRESS: claim it first.",
    0xC311: "The workitem is COMPLETED.",
    0xB304: "The workitem is CANCELED already.",
    0xB306: "The workitem is COMPLETED already.",
}


def step(request: Request, state: State, *, held: str | None, given: str | None) -> Step:
    """`held` is the Transaction UID of the claim, `given` that of the request. Any is correct before there was a claim."""
    correct = request == "request-cancel" or (bool(given) and held in (None, given))
    return TRANSITIONS[request, correct][state]


# -- final states -----------------------------------------------------------------------------------------------------
PROGRESS: Final = "00741002"
DISCONTINUED_AT: Final = "00404052"
REASON_CODES: Final = "0074100E"
PERFORMED: Final = "00741216"
_ALWAYS: Final = {"00741200": "ScheduledProcedureStepPriority", "00741204": "ProcedureStepLabel",
                  "00404005": "ScheduledProcedureStepStartDateTime", "00404041": "InputReadinessState"}  # fmt: skip
_PERFORMED: Final = {"00404028": "PerformedStationNameCodeSequence", "00404050": "PerformedProcedureStepStartDateTime",
                     "00404019": "PerformedWorkitemCodeSequence", "00404051": "PerformedProcedureStepEndDateTime",
                     "00404033": "OutputInformationSequence"}  # fmt: skip


def unmet(state: State, attributes: Json) -> list[str]:
    """What the final state demands and the attributes do not hold (final state codes R, P and X of Table CC.2.5-3)."""
    missing = [keyword for tag, keyword in _ALWAYS.items() if not _valued(attributes, tag)]
    if state == State.COMPLETED:
        performed = _item(attributes, PERFORMED)
        # What was put out may be nothing; then the sequence is there and empty (type 2).
        missing += [
            keyword
            for tag, keyword in _PERFORMED.items()
            if not (_valued(performed, tag) or (tag == "00404033" and tag in performed))
        ]
    if state == State.CANCELED:
        progress = _item(attributes, PROGRESS)
        missing += [] if _valued(progress, REASON_CODES) else ["ProcedureStepDiscontinuationReasonCodeSequence"]
    return missing


def _valued(attributes: Json, tag: str) -> bool:
    return bool(attributes.get(tag, {}).get("Value"))


def _item(attributes: Json, tag: str) -> Json:
    items = attributes.get(tag, {}).get("Value") or [{}]
    return items[0]
