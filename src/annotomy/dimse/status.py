"""DIMSE status words, and the one table from our problems to them (PS3.7 C, PS3.4 B.2.3, C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""

from enum import IntEnum

from annotomy.archive.errors import StoreRefused
from annotomy.errors import BadRequest, Forbidden, NotFound, Problem, TooLarge, Unauthenticated, Unavailable


class Status(IntEnum):
    SUCCESS = 0x0000
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_UNSUPPORTED_KEYS = 0xFF01
    """Pending; one or more optional keys are not matched."""

    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    NOT_AUTHORIZED = 0x0124
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212

    OUT_OF_RESOURCES = 0xA700
    UNABLE_TO_COUNT_MATCHES = 0xA701
    UNABLE_TO_PERFORM_SUBOPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_DOES_NOT_MATCH = 0xA900
    """C-STORE: data set and SOP class differ; C-FIND, C-GET, C-MOVE: identifier and SOP class differ."""
    SUBOPERATIONS_FAILED = 0xB000
    """Warning: one or more sub-operations failed."""
    CANNOT_UNDERSTAND = 0xC000


OF_PROBLEM: tuple[tuple[type[Problem], Status], ...] = (
    (TooLarge, Status.OUT_OF_RESOURCES),
    (Unavailable, Status.OUT_OF_RESOURCES),
    (BadRequest, Status.DATA_SET_DOES_NOT_MATCH),
    (Forbidden, Status.NOT_AUTHORIZED),
    (NotFound, Status.NOT_AUTHORIZED),
    (Unauthenticated, Status.NOT_AUTHORIZED),
)
"""The first line that fits rules. NotFound is what somebody hears who may not know that a project exists."""


def status_of(problem: Problem) -> int:
    """A refused instance carries its status word itself: STOW-RS answers the same as Failure Reason (PS3.18 I.2.2)."""
    if isinstance(problem, StoreRefused):
        return problem.failure_reason
    return next((status for kind, status in OF_PROBLEM if isinstance(problem, kind)), Status.PROCESSING_FAILURE)
