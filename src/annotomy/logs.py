"""Structured logs: one JSON object a line on standard error, no patient data.

An event's fields are an allow-list by habit: identifiers of ours, counts, durations, states. Control characters
are escaped by JSON; a line is cut at 8 KiB.
"""

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec
import structlog

LINE_LIMIT_BYTES = 8192
MAX_CHAIN = 5
MAX_FRAMES = 20
"""Of each exception, the innermost ones."""


def configure_logs(level: str, *, process: str) -> None:
    """Called once by each process. `process` names it in every line: server, http, worker, dimse."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _where_it_failed,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service="annotomy", process=process)


def _where_it_failed(_logger: Any, _method: str, event: Any) -> Any:
    """The exception as types and places. Its message stays out: libraries quote the values that they stumbled over."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = [_place_of(one) for one in _chain(error)]
    return event


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and what it came from, as far as Python would print them."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found and len(found) < MAX_CHAIN:
        found.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return found


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return " < ".join([type(error).__qualname__, *reversed(places)])


def _render(_logger: Any, _method: str, event: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str)[:LINE_LIMIT_BYTES].decode("utf-8", "replace")
