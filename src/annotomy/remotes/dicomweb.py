"""A remote over DICOMweb (PS3.18): QIDO-RS, WADO-RS and STOW-RS as user agent.

Nothing that comes is believed: answers are capped in size and time, read as what they claim to be or not at all, and objects that
were not asked for are dropped. Each request goes through the egress guard; redirects are not followed, since each carries a secret.
"""

import asyncio
import base64
import os
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec

from annotomy.archive.retrieve import InstanceLocation
from annotomy.archive.spool import spooled
from annotomy.archive.store import Incoming
from annotomy.dicom.multipart import MultipartError, boundary_of, message_end, part_head, read_parts
from annotomy.errors import TooLarge
from annotomy.http.egress import Egress, EgressFailed
from annotomy.remotes.addresses import DicomwebAddress
from annotomy.remotes.errors import RemoteFailed, RemoteRefused, RemoteUnreadable
from annotomy.remotes.remote_archive import KEYWORDS, Found, InstanceName, Level, Remote, Sent, checked_rows, value_of
from annotomy.services import Services

IDLE_S = 60.0
"""For the next bytes of an answer: a PACS that stages from tape needs some time before the first."""
QUERY_S = 60.0
"""For one page of a query, from its request to its end: a person waits for it."""
FILES_S = 3600.0
"""For one answer with files, or one request with some: the largest series over a slow line."""
PAGE_ROWS = 500
MAX_QUERY_BYTES = 32 << 20
"""Of one page: 500 rows have about 1 MiB."""
MAX_PAGES = 2000
MAX_STRAYS = 16
"""Files of one answer that were not asked for: after these we stop listening."""
BATCH_INSTANCES, BATCH_BYTES = 32, 64 << 20
"""Of one STOW-RS request: what has to be sent again when it fails."""
WILDCARDS = "*?"
"""Allowed in a query as they are (RFC 3986 3.4); some servers do not know their escapes."""
JSON = "application/dicom+json"
DICOM = "application/dicom"
PASSING_REASONS = range(0xA700, 0xA800)
"""Failure Reasons that say out of resources."""


class DicomwebRemote:
    """One remote; requests are independent of each other."""

    def __init__(self, services: Services, remote: Remote) -> None:
        assert isinstance(remote.address, DicomwebAddress)
        self._services = services
        self._address = remote.address
        self._egress: Egress | None = None

    async def echo(self) -> None:
        """A query for one study: it needs the right address, credentials and service."""
        await self._page("studies", [("limit", "1")])

    async def query(self, level: Level, match: Mapping[str, str], *, limit: int) -> Found:
        path = _query_path(level, match)
        above = {"series": ("StudyInstanceUID",), "instance": ("StudyInstanceUID", "SeriesInstanceUID")}.get(level, ())
        asked = [(name, value) for name, value in match.items() if value and name not in above]
        asked += [("includefield", name) for name in KEYWORDS[level]]
        rows, malformed, known = list[dict[str, Any]](), 0, set[str]()
        offset = 0
        for _ in range(MAX_PAGES):
            wanted = min(PAGE_ROWS, limit + 1 - len(rows))
            page = await self._page(path, [*asked, ("limit", str(wanted)), ("offset", str(offset))])
            good, bad = checked_rows(level, match, page)
            malformed += bad
            fresh = [row for row in good if _key(row, level) not in known]
            known |= {_key(row, level) for row in fresh}
            rows += fresh
            offset += len(page)
            if len(rows) > limit:
                return Found(rows[:limit], complete=False, malformed=malformed)
            if not fresh:  # the end, or a server that does not page and has told all it has
                return Found(rows, malformed=malformed)
        return Found(rows, complete=False, malformed=malformed)

    async def retrieve(self, wanted: Sequence[InstanceName], whole_series: bool) -> AsyncGenerator[Incoming]:
        """The series in one answer where all of it is wanted, else instance by instance."""
        series = f"studies/{wanted[0].study_instance_uid}/series/{wanted[0].series_instance_uid}"
        if whole_series:
            async for file in self._files(series, len(wanted)):
                yield file
            return
        for one in wanted:
            async for file in self._files(f"{series}/instances/{one.sop_instance_uid}", 1):
                yield file

    async def store(self, instances: Sequence[InstanceLocation]) -> AsyncGenerator[Sent]:
        batch: list[InstanceLocation] = []
        for one in instances:
            if batch and (
                len(batch) >= BATCH_INSTANCES or sum(at.blob_size for at in batch) + one.blob_size > BATCH_BYTES
            ):
                for sent in await self._store(batch):
                    yield sent
                batch = []
            batch.append(one)
        for sent in await self._store(batch) if batch else []:
            yield sent

    # -- requests ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str],
        content: AsyncIterator[bytes] | None = None,
        deadline_s: float | None,
    ) -> AsyncGenerator[httpx.Response]:
        """Raises EgressRefused for an address that may not be called, RemoteFailed for all else that goes wrong.

        A generator, whose caller works between two pieces, gives no deadline and looks at the clock itself.
        """
        query = f"?{urlencode(params, quote_via=quote, safe=WILDCARDS)}" if params else ""
        url = httpx.URL(f"{self._address.url.rstrip('/')}/{path}{query}")
        try:
            async with (
                asyncio.timeout(deadline_s),
                self._guard().stream(
                    method, url, headers={**_credentials(self._address), **headers}, content=content, idle_s=IDLE_S
                ) as response,
            ):
                _require_success(response)
                yield response
        except TimeoutError as error:
            raise RemoteFailed("The remote took too long.") from error
        except EgressFailed as error:
            raise RemoteFailed(error.detail) from error

    def _guard(self) -> Egress:
        if self._egress is None:
            self._egress = Egress(self._services.settings.http.egress_allow, tls=tls_context(self._address))
        return self._egress

    async def _page(self, path: str, params: Sequence[tuple[str, str]]) -> list[Any]:
        accepted = {"Accept": JSON}
        async with self._ask("GET", path, params=params, headers=accepted, deadline_s=QUERY_S) as response:
            if response.status_code == 204:
                return []
            _require_type(response, JSON, "application/json")
            body = await _bounded(response, MAX_QUERY_BYTES)
        found = await asyncio.to_thread(_decoded, body)
        if not isinstance(found, list):
            raise RemoteUnreadable("The remote's answer is no list.")
        return found  # pyright: ignore[reportUnknownVariableType]

    async def _files(self, path: str, count: int) -> AsyncGenerator[Incoming]:
        accepted = {"Accept": f'multipart/related; type="{DICOM}"; transfer-syntax=*'}
        limits = self._services.settings.limits
        try:
            async with self._ask("GET", path, headers=accepted, deadline_s=None) as response:
                _require_type(response, "multipart/related")
                number = 0
                source = _capped(response, limits.upload_bytes, FILES_S)
                async for part in read_parts(source, boundary_of(response.headers["content-type"])):
                    number += 1
                    if number > count + MAX_STRAYS:
                        raise RemoteUnreadable("The remote sends more than it was asked for.")
                    async with spooled(self._services, f"file {number}", part.body, prefix="remote") as file:
                        yield file
        except RemoteRefused as refusal:
            if refusal.extras.get("remote_status") not in (404, 410):
                raise
            # It does not have what it named: found by counting what came.
        except MultipartError as error:
            raise RemoteUnreadable("The remote's answer ends early, or is no multipart message.") from error
        except TooLarge as error:
            raise RemoteUnreadable("The remote sends an instance over the limit.") from error

    async def _store(self, batch: list[InstanceLocation]) -> list[Sent]:
        boundary = f"annotomy{secrets.token_hex(16)}"
        heads = [part_head(boundary, [("Content-Type", DICOM)], first=not n) for n in range(len(batch))]
        end = message_end(boundary)
        length = sum(map(len, heads)) + sum(at.blob_size for at in batch) + len(end)

        async def body() -> AsyncIterator[bytes]:
            for head, at in zip(heads, batch, strict=True):
                yield head
                async for piece in self._services.blobs.stream(at.blob_address):
                    yield piece
            yield end

        headers = {
            "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
            "Content-Length": str(length),
            "Accept": JSON,
        }
        async with self._ask("POST", "studies", headers=headers, content=body(), deadline_s=FILES_S) as response:
            _require_type(response, JSON, "application/json")
            answer = await asyncio.to_thread(_decoded, await _bounded(response, MAX_QUERY_BYTES))
        return _outcomes(answer, {at.sop_instance_uid for at in batch})


def open_dicomweb(services: Services, remote: Remote) -> DicomwebRemote:
    return DicomwebRemote(services, remote)


# -- what is sent -----------------------------------------------------------------------------------------------------


def _query_path(level: Level, match: Mapping[str, str]) -> str:
    if level == "study":
        return "studies"
    path = f"studies/{match['StudyInstanceUID']}"
    if level == "series":
        return f"{path}/series"
    return (
        f"{path}/series/{match['SeriesInstanceUID']}/instances"
        if match.get("SeriesInstanceUID")
        else f"{path}/instances"
    )


def _credentials(address: DicomwebAddress) -> dict[str, str]:
    if address.auth == "basic":
        pair = base64.b64encode(f"{address.username}:{address.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {"Authorization": f"Bearer {address.token}"} if address.auth == "bearer" else {}


def tls_context(address: Any) -> ssl.SSLContext:
    """Of a `DicomwebAddress` or `DimseAddress`: whom we believe, and who we are. Raises RemoteFailed for unreadable certificates."""
    context = ssl.create_default_context()
    try:
        if address.ca:
            context.load_verify_locations(cadata=address.ca)
        if address.certificate:
            # The library reads a file only; this one lies in memory, so that the key never lies on a disk.
            descriptor = os.memfd_create("certificate")
            try:
                os.write(descriptor, f"{address.certificate}\n{address.key}\n".encode())
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
    except (ssl.SSLError, ValueError) as error:
        raise RemoteFailed("The certificate, its key or the authorities cannot be read.") from error
    return context


# -- what comes -------------------------------------------------------------------------------------------------------


def _require_success(response: httpx.Response) -> None:
    status = response.status_code
    if status in (401, 403, 407):
        raise RemoteRefused(f"The remote does not accept our credentials (status {status}).", remote_status=status)
    if 300 <= status < 400:
        raise RemoteRefused("The remote sends us elsewhere, where our credentials do not go.", remote_status=status)
    if status == 409:
        return  # STOW-RS: all refused, and the body says why
    if not 200 <= status < 300:
        kind = RemoteFailed if status >= 500 or status in (408, 425, 429) else RemoteRefused
        raise kind(f"The remote answers with the status {status}.", remote_status=status)


def _require_type(response: httpx.Response, *types: str) -> None:
    found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in types or response.headers.get("content-encoding", "identity") != "identity":
        raise RemoteUnreadable(f"The remote's answer is not of the type {types[0]}.")


async def _capped(response: httpx.Response, limit_bytes: int, deadline_s: float = float("inf")) -> AsyncIterator[bytes]:
    size, began = 0, time.monotonic()
    async for piece in response.aiter_raw():
        size += len(piece)
        if time.monotonic() - began > deadline_s:
            raise RemoteFailed("The remote took too long.")
        if size > limit_bytes:
            raise RemoteUnreadable("The remote's answer is too large.")
        yield piece


async def _bounded(response: httpx.Response, limit_bytes: int) -> bytes:
    return b"".join([piece async for piece in _capped(response, limit_bytes)])


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteUnreadable("The remote's answer is no JSON.") from error


def _key(row: Mapping[str, Any], level: Level) -> str:
    tags = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
    return str(value_of(row, tags[level]))


def _outcomes(answer: Any, sent: set[str]) -> list[Sent]:
    """The Store Instances Response (PS3.18 I). What it does not speak of has no outcome."""
    if not isinstance(answer, dict):
        raise RemoteUnreadable("The remote's answer is no Store Instances Response.")
    found: dict[str, Sent] = {}
    for tag in ("00081199", "00081198"):
        for item in _items(answer, tag):  # pyright: ignore[reportUnknownArgumentType]
            uid = value_of(item, "00081155")
            if uid not in sent:
                continue
            reason = value_of(item, "00081197")
            if tag == "00081199":
                found.setdefault(uid, Sent(uid))
            else:  # spoken of as both, it was not taken
                code = reason if isinstance(reason, int) else 0x0110
                found[uid] = Sent(uid, f"refused by the remote ({code & 0xFFFF:04X}H)", passing=code in PASSING_REASONS)
    return list(found.values())


def _items(answer: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    element = answer.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []  # pyright: ignore[reportUnknownVariableType]
