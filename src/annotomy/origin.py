"""From where somebody asks: set once at the edge for everything that follows from it, read by the audit."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    source: str
    """A network address, or the word of a process of ours."""
    request_id: str = ""
    reason: str = ""
    """Why they say that they ask: bulk downloads and exports need one."""


LOCAL = Origin("local")
ORIGIN: ContextVar[Origin] = ContextVar("origin", default=LOCAL)
