"""Resumable Uploads for HTTP (IETF draft-ietf-httpbis-resumable-upload, interop version 6 and later) over the same offsets.

A creation may carry the whole file; `Upload-Complete: ?1` marks the request with which an upload ends. Interim 104 answers
are not sent: the server under us has no way to, and clients must not rely on them.
"""

from typing import Any
from uuid import UUID

from litestar import Request, Response

from annotomy.actor import Actor
from annotomy.errors import BadRequest, Unsupported
from annotomy.services import Services
from annotomy.uploads import receive
from annotomy.uploads.chunk_routes import announced_bytes, body_of, upload_limit, whole_header
from annotomy.uploads.pictures import GeometryForm, form_of

INTEROP_VERSION = "8"
PARTIAL_TYPE = "application/partial-upload"


def is_draft(request: Request[Any, Any, Any]) -> bool:
    """Whether the request speaks the draft rather than tus."""
    return "upload-complete" in request.headers and "tus-resumable" not in request.headers


def state_headers(*, complete: bool) -> dict[str, str]:
    return {"Upload-Complete": "?1" if complete else "?0", "Upload-Draft-Interop-Version": INTEROP_VERSION}


async def create(request: Request[Any, Any, Any], actor: Actor, services: Services) -> Response[None]:
    completes = _completes(request)
    length = whole_header(request, "upload-length") if "upload-length" in request.headers else None
    if length is None and completes and "content-length" in request.headers:
        length = whole_header(request, "content-length")
    filename = request.query_params.get("filename", "")
    upload_id = await receive.create_upload(
        services, actor, length=length, filename=filename, project_id=_project(request), geometry=_geometry(request)
    )
    offset = 0
    if length != 0:
        offset = await receive.receive_chunk(
            services,
            actor,
            upload_id,
            offset=0,
            body=body_of(request),
            completes=completes,
            announced=announced_bytes(request),
        )
    headers = {
        "Location": f"/api/v1/uploads/{upload_id}",
        "Upload-Offset": str(offset),
        "Upload-Limit": upload_limit(services),
    }
    return Response(None, status_code=201, headers=headers | state_headers(complete=completes or offset == length))


async def append(request: Request[Any, Any, Any], upload_id: UUID, actor: Actor, services: Services) -> Response[None]:
    if request.headers.get("content-type") != PARTIAL_TYPE:
        raise Unsupported(f"A chunk has the Content-Type {PARTIAL_TYPE}.")
    completes = _completes(request)
    offset = await receive.receive_chunk(
        services,
        actor,
        upload_id,
        offset=whole_header(request, "upload-offset"),
        body=body_of(request),
        length=whole_header(request, "upload-length") if "upload-length" in request.headers else None,
        completes=completes,
        announced=announced_bytes(request),
    )
    headers = {"Upload-Offset": str(offset)} | state_headers(complete=completes)
    return Response(None, status_code=204, headers=headers)


def _completes(request: Request[Any, Any, Any]) -> bool:
    """A structured boolean (RFC 9651 3.3.6)."""
    try:
        return {"?1": True, "?0": False}[request.headers.get("upload-complete", "").strip()]
    except KeyError:
        raise BadRequest("Upload-Complete is ?1 or ?0.") from None


def _geometry(request: Request[Any, Any, Any]) -> GeometryForm | None:
    text = request.query_params.get("geometry")
    return form_of(text) if text else None


def _project(request: Request[Any, Any, Any]) -> UUID | None:
    text = request.query_params.get("project_id")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise BadRequest("project_id is no UUID.") from None
