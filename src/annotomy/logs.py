"""Structured logs: one JSON object a line on standard error, no patient data.

An event's fields are an allow-list by habit: identifiers of ours, counts, durations, states. Control characters
are escaped by JSON; a line is cut at 8 KiB.
"""

import logging
import sys
from typing import Any

import msgspec
import structlog

LINE_LIMIT_BYTES = 8192


def configure_logs(level: str, *, process: str) -> None:
    """Called once by each process. `process` names it in every line: server, http, worker, dimse."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service="annotomy", process=process)


def _render(_logger: Any, _method: str, event: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str)[:LINE_LIMIT_BYTES].decode("utf-8", "replace")
