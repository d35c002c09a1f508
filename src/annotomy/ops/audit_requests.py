"""Around each request: says from where it comes, and notes reads, downloads and refusals as the routes declare them.

A route's `opt["audit"]` names the action of a read; with `opt["audit_first"]` the record is durable before the first byte of
the answer. Refusals (403, and 404 to somebody who is signed in) are noted for every route. Writes record themselves.
"""

from typing import Any
from urllib.parse import parse_qsl, unquote

from annotomy.actor import Actor
from annotomy.audit import Entry
from annotomy.ops.audit_queue import AuditQueue
from annotomy.origin import ORIGIN, Origin

_DENIED = {403: "denied", 404: "not-found"}


def audit_requests(app: Any) -> Any:
    """Pure ASGI; stands inside of `request_context`, which gives the request its id."""

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        client = scope.get("client")
        request_id = str(scope.get("state", {}).get("request_id", ""))
        token = ORIGIN.set(Origin(client[0] if client else "local", request_id, _reason(scope)))

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                await _note(scope, message["status"])
            await send(message)

        try:
            await app(scope, receive, answer)
        finally:
            ORIGIN.reset(token)

    return handle


def _reason(scope: Any) -> str:
    """Why, as the asker says: of a download in bulk. A header for programs, a query parameter for links."""
    for name, value in scope["headers"]:
        if name == b"annotomy-reason":
            return unquote(value.decode("latin-1"), errors="replace").strip()
    query = scope.get("query_string", b"")
    if b"download_reason=" not in query:
        return ""
    return dict(parse_qsl(query.decode("latin-1"), errors="replace")).get("download_reason", "").strip()


async def _note(scope: Any, status: int) -> None:
    handler, actor = scope.get("route_handler"), scope.get("state", {}).get("actor")
    if handler is None or not isinstance(actor, Actor):
        return
    action: str | None = handler.opt.get("audit")
    if not (status in _DENIED or (action is not None and status < 400)):
        return
    queue: AuditQueue = scope["litestar_app"].state.audit_queue
    kind, object_id, study = _object(scope.get("path_params", {}))
    entry = Entry(
        action=action or str(handler.opt.get("permission", "request")),
        object_kind=kind,
        object_id=object_id,
        project_id=scope.get("path_params", {}).get("project_id"),
        study_instance_uid=study,
        outcome=_DENIED.get(status, "success"),
        detail={"route": str(scope.get("path_template", ""))},
    )
    if status < 400 and handler.opt.get("audit_first"):
        await queue.note_durably(actor, entry)
    else:
        await queue.note(actor, entry)


def _object(path: dict[str, Any]) -> tuple[str, str, str | None]:
    """What the path names, series at the finest: instances and frames are read by the hundred."""
    study = path.get("study_instance_uid")
    for name in ("series_instance_uid", "study_instance_uid"):
        if name in path:
            return name.removesuffix("_instance_uid"), str(path[name]), study
    if "month" in path:
        return "audit_review", str(path["month"]), None
    if "number" in path:
        return "audit_segment", str(path["number"]), None
    for name in reversed(path):
        if name.endswith("_id"):
            return name.removesuffix("_id"), str(path[name]), None
    return "list", "", None
