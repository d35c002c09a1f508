"""Problems on the wire: RFC 9457 problem+json with the request's id. The one translation for HTTP."""

from typing import Any

import asyncpg
import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from annotomy.errors import BadRequest, Problem

log = structlog.get_logger(__name__)
PROBLEM_JSON = "application/problem+json"


def problem_response(request: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    wait = problem.extras.get("retry_after_s")
    return _response(request, problem.to_json(), problem.status, {"Retry-After": str(wait)} if wait else None)


def http_exception_response(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework itself refuses: unknown paths, methods, bodies that do not fit their schema."""
    body: dict[str, Any] = {
        "type": "urn:annotomy:problem:" + _slug(error.status_code),
        "title": error.detail if error.status_code != 400 else "The request is not valid",
        "status": error.status_code,
        "detail": error.detail,
    }
    if isinstance(error, ValidationException) and error.extra:
        body["fields"] = error.extra
    return _response(request, body, error.status_code, error.headers)


def unreadable_text_response(request: Request[Any, Any, Any], _: Exception) -> Response[bytes]:
    """PostgreSQL keeps no NUL and no broken UTF-8; text with either came from the asker, in whatever part of the request."""
    return problem_response(request, BadRequest("The request holds a NUL character or text that is not UTF-8."))


def out_of_range_response(request: Request[Any, Any, Any], error: asyncpg.DataError) -> Response[bytes]:
    """A number beyond what a column holds came from the asker, too: our own versions and places never grow that far."""
    if "value out of int" in str(error):
        return problem_response(request, BadRequest("A number of the request is out of range."))
    return failure_response(request, error)


def failure_response(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: logged with its trace, told without any detail."""
    if isinstance(error, (RecursionError, UnicodeDecodeError)) and _was_decoding_a_body(error):
        return problem_response(request, BadRequest("The JSON is nested too deeply or is not UTF-8."))
    log.exception("request.failed", request_id=request_id(request), route=request.scope.get("path_template", ""))
    body = {
        "type": "urn:annotomy:problem:internal",
        "title": "The server failed to answer",
        "status": 500,
        "detail": "The failure is in the server's log under this request id.",
    }
    return _response(request, body, 500)


def request_id(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def _was_decoding_a_body(error: Exception) -> bool:
    """Whether the framework's JSON decoder raised it: it tells only malformed JSON as the asker's mistake by itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("litestar.serialization")


def _slug(status: int) -> str:
    return {
        400: "bad-request",
        401: "unauthenticated",
        403: "forbidden",
        404: "not-found",
        405: "method-not-allowed",
        413: "too-large",
        415: "unsupported",
    }.get(status, "http-error")


def _response(
    request: Request[Any, Any, Any], body: dict[str, Any], status: int, headers: dict[str, str] | None = None
) -> Response[bytes]:
    body["request_id"] = request_id(request)
    all_headers = dict(headers or {})
    if status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=MediaType.JSON,
        headers=all_headers | {"Content-Type": PROBLEM_JSON},
    )
