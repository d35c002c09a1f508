"""The log as a file: streamed in batches, whatever its length, and recorded with filter and reason before its first byte."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from annotomy.actor import Actor
from annotomy.archive.errors import ReasonRequired
from annotomy.audit import record
from annotomy.ops import audit_dicom, audit_fhir
from annotomy.ops.audit_search import AuditFilter, AuditLine, auditable_projects, batches, count, looked_at
from annotomy.services import Services

Format = Literal["dicom", "fhir", "jsonl"]


@dataclass(frozen=True, slots=True)
class _Form:
    media_type: str
    suffix: str
    one: Callable[[AuditLine, str], bytes]
    head: bytes = b""
    tail: bytes = b""


def _json_line(line: AuditLine, site: str) -> bytes:
    del site
    return msgspec.json.encode(line) + b"\n"


FORMS: dict[Format, _Form] = {
    "dicom": _Form(
        "application/xml", "xml", audit_dicom.message_of, audit_dicom.HEAD, audit_dicom.TAIL
    ),
    "fhir": _Form("application/fhir+ndjson", "fhir.ndjson", audit_fhir.event_of),
    "jsonl": _Form("application/x-ndjson", "jsonl", _json_line),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    body: AsyncIterator[bytes]
    media_type: str
    file_name: str


def require_reason(reason: str) -> None:
    if not reason.strip():
        raise ReasonRequired("An export of the audit needs a reason.")


async def begin(services: Services, actor: Actor, asked: AuditFilter, form: Format, *, reason: str) -> Exported:
    """Records the export; what is recorded later, its own record included, is not in the file."""
    require_reason(reason)
    async with services.db.read(actor) as tx:
        projects = await auditable_projects(tx, actor)
        upto: int = await tx.fetchval("select coalesce(max(seq), 0) from audit")
        records = await count(tx, asked, projects)
    async with services.db.write(actor) as tx:
        entry = looked_at("audit.exported", asked, format=form, records=records)
        await record(tx, msgspec.structs.replace(entry, reason=reason.strip()))
    site = services.settings.http.public_url or "annotomy"
    return Exported(
        _body(services, actor, asked, FORMS[form], upto, site), FORMS[form].media_type, f"audit.{FORMS[form].suffix}"
    )


async def _body(
    services: Services, actor: Actor, asked: AuditFilter, form: _Form, upto: int, site: str
) -> AsyncIterator[bytes]:
    if form.head:
        yield form.head
    async for lines in batches(services.db, actor, asked, upto=upto):
        yield await asyncio.to_thread(_encode, form, lines, site)
    if form.tail:
        yield form.tail


def _encode(form: _Form, lines: list[AuditLine], site: str) -> bytes:
    return b"".join(form.one(line, site) for line in lines)
