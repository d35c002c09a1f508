"""The refusals of each operation in the API's description: problem+json (RFC 9457), by status.

What an operation may answer follows from its form: who must sign in may be told 401, who names an object 404, who sends
`If-Match` 412. A route names in `opt["problems"]` what does not follow. Status 500 is in no list: it is always a fault of ours.
"""

import re
from collections.abc import Iterable
from typing import Any

from annotomy.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Problem,
    RequestTooSlow,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from annotomy.http.idempotency import IdempotencyKeyInFlight, IdempotencyKeyReused

Json = dict[str, Any]

PROBLEM_JSON = "application/problem+json"
ANYONE = "anyone"
"""The declared permission of what needs no credential."""
_CHANGING = frozenset({"post", "put", "patch", "delete"})
_WITH_BODY = frozenset({"post", "put", "patch"})
_NAMES_AN_OBJECT = re.compile(r"_(id|uid)$")
PROBLEM_SCHEMA: Json = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `type` ends in the problem's slug; docs/reference/problems.md has them all.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "request_id"],
}


def add_refusals(method: str, operation: Json, opt: Json, document: Json) -> None:
    """Into `operation`, which has its parameters and its body already; what all share goes into the document's components."""
    components: Json = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
    shared: Json = components.setdefault("responses", {})
    answers: Json = operation["responses"]
    by_status: dict[int, list[str]] = {}
    for problem in [*_by_form(method, operation, opt, document), *opt.get("problems", ())]:
        titles = by_status.setdefault(problem.status, [])
        if problem.title not in titles:
            titles.append(problem.title)
    for status, titles in sorted(by_status.items()):
        name = "".join(word.capitalize() for word in re.findall(r"\w+", " or ".join(titles)))
        shared.setdefault(
            name, {"description": ". ".join(titles), "content": {PROBLEM_JSON: {"schema": {"$ref": _SCHEMA}}}}
        )
        kept = answers.get(str(status), {}).get("content", {}) if status != BadRequest.status else {}
        if kept:  # the route says itself that this status may carry another body, as STOW-RS does
            answers[str(status)]["content"] = {**kept, PROBLEM_JSON: {"schema": {"$ref": _SCHEMA}}}
        else:
            answers[str(status)] = {"$ref": f"#/components/responses/{name}"}
    operation["responses"] = dict(sorted(answers.items()))


_SCHEMA = "#/components/schemas/Problem"


def _by_form(method: str, operation: Json, opt: Json, document: Json) -> Iterable[type[Problem]]:
    parameters: list[Json] = operation.get("parameters", [])
    headers = {one["name"].lower() for one in parameters if one["in"] == "header"}
    signs_in = opt.get("permission") != ANYONE
    yield BadRequest
    if signs_in or method in _CHANGING:  # signing in itself is refused with the same words
        yield from (Unauthenticated, Forbidden, TooManyRequests)
    if any(one["in"] == "path" or _NAMES_AN_OBJECT.search(one["name"]) for one in parameters) or (
        signs_in and any(map(_NAMES_AN_OBJECT.search, _members(operation, document)))
    ):
        yield NotFound
    if method in _WITH_BODY or "requestBody" in operation:
        yield from (RequestTooSlow, TooLarge)
    if method in _CHANGING:
        yield Conflict
    if "if-match" in headers:
        yield from (PreconditionFailed, PreconditionRequired)
    if "idempotency-key" in headers:
        yield from (IdempotencyKeyReused, IdempotencyKeyInFlight)


def _members(operation: Json, document: Json) -> set[str]:
    """The names of all members that the JSON body of an operation can hold, at any depth."""
    found, seen = set[str](), set[str]()

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                visit(one)
        elif isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                visit(document["components"]["schemas"][reference.rpartition("/")[2]])
            found.update(node.get("properties", {}))
            for value in node.values():
                visit(value)

    visit(operation.get("requestBody", {}))
    return found
