"""PS3.4 CC.1.1, cell by cell: what becomes of each request in each state; and what the final states demand."""

from typing import Any

import pytest

from annotomy.workitems.attributes import code
from annotomy.workitems.states import Request, State, step, unmet

S, P, D, X = State.SCHEDULED, State.IN_PROGRESS, State.COMPLETED, State.CANCELED
LOCK, OTHER = "1.2.3", "1.2.4"

# Written anew from Table CC.1.1-2, in the order of its columns: SCHEDULED, IN PROGRESS, COMPLETED, CANCELED.
TABLE: list[tuple[Request, bool, list[Any]]] = [
    ("claim", True, [P, 0xC302, 0xC300, 0xC300]),
    ("claim", False, [0xC301, 0xC301, 0xC301, 0xC301]),
    ("schedule", True, [0xC303, 0xC303, 0xC303, 0xC303]),
    ("complete", True, [0xC310, D, 0xB306, 0xC300]),
    ("complete", False, [0xC301, 0xC301, 0xC301, 0xC301]),
    ("request-cancel", False, [X, "tell", 0xC311, 0xB304]),
    ("cancel", True, [0xC310, X, 0xC300, 0xB304]),
    ("cancel", False, [0xC301, 0xC301, 0xC301, 0xC301]),
]
CELLS = [
    (request, correct, state, expected)
    for request, correct, row in TABLE
    for state, expected in zip((S, P, D, X), row, strict=True)
]


@pytest.mark.parametrize(("request_", "correct", "state", "expected"), CELLS)
def test_each_cell_of_the_state_table(request_: Request, correct: bool, state: State, expected: Any) -> None:
    held = None if state == S else LOCK
    wrong = [None, ""] if state == S else [None, "", OTHER]
    for given in [LOCK] if correct else wrong:
        assert step(request_, state, held=held, given=given) == expected


def test_the_table_has_every_cell() -> None:
    assert len(CELLS) == 32


SCHEDULED = {tag: {"vr": "CS", "Value": ["x"]} for tag in ("00741200", "00741204", "00404005", "00404041")}
PERFORMED = {
    "00404028": code("1", "99", "station"),
    "00404050": {"vr": "DT", "Value": ["2026"]},
    "00404019": code("2", "99", "work"),
    "00404051": {"vr": "DT", "Value": ["2026"]},
    "00404033": {"vr": "SQ"},
}


@pytest.mark.parametrize("left_out", [*PERFORMED, *SCHEDULED])
def test_completed_demands_each_of_what_was_performed(left_out: str) -> None:
    item = {tag: value for tag, value in PERFORMED.items() if tag != left_out}
    scheduled = {tag: value for tag, value in SCHEDULED.items() if tag != left_out}
    assert len(unmet(D, scheduled | {"00741216": {"vr": "SQ", "Value": [item]}})) == 1
    assert unmet(D, SCHEDULED | {"00741216": {"vr": "SQ", "Value": [PERFORMED]}}) == []


def test_canceled_demands_a_reason() -> None:
    assert unmet(X, SCHEDULED) == ["ProcedureStepDiscontinuationReasonCodeSequence"]
    progress = {"0074100E": code("110513", "DCM", "unspecified")}
    assert unmet(X, SCHEDULED | {"00741002": {"vr": "SQ", "Value": [progress]}}) == []
