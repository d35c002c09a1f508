"""Where clients send the parts of an upload directly: a multipart upload of the object store's own (S3), under `uploads/`.

Bytes go from the client to the store and never through this server; what arrives is nobody's content until the ingest job
has read it back, held it against its size and hash and stored it. Every request, ours too, is a presigned one.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import httpx

from annotomy.blobs.sigv4 import Credentials, presigned

TIMEOUT_S: Final = 60.0
TRIES: Final = 5
"""Of a request of ours that meets a failing store; the pauses between are 0.2 s and twice as much each time."""
OWN_LIFETIME_S: Final = 300
MAX_PAGES: Final = 20
"""Of a list: 10,000 parts are 10 pages of 1,000."""
PIECE_BYTES: Final = 4 << 20


class StagingUnavailable(Exception):
    """The store does not answer, or not with success. `status` is its last one, None when there was none."""

    def __init__(self, what: str, status: int | None) -> None:
        super().__init__(f"{what}: {'no answer' if status is None else f'HTTP {status}'}")
        self.status = status


@dataclass(frozen=True, slots=True)
class StagedPart:
    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Signed:
    """One request that a client may send: exactly these headers, besides those of every client."""

    url: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Unfinished:
    key: str
    multipart_id: str
    begun: datetime


class S3Staging:
    """Multipart uploads of one bucket, below `prefix`."""

    def __init__(
        self,
        *,
        endpoint: str,
        public_endpoint: str,
        region: str,
        prefix: str,
        credentials: Credentials,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`endpoint` and `public_endpoint` are the bucket's address for us and for clients, without a final slash."""
        self._endpoint, self._public = endpoint, public_endpoint
        self._region, self._prefix, self._credentials, self._now = region, prefix, credentials, now
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)

    @classmethod
    def from_url(cls, url: str, credentials: Credentials) -> "S3Staging":
        """Of the same URL as the blobs: `s3://bucket/prefix?endpoint=...&region=...&public_endpoint=...`."""
        parts = urlsplit(url)
        told = dict(parse_qsl(parts.query))
        region = told.get("region", "us-east-1")
        bucket = parts.netloc

        def address(endpoint: str | None) -> str:
            if endpoint is not None:  # an endpoint of one's own: few of those resolve bucket names as host names
                return f"{endpoint.rstrip('/')}/{bucket}"
            return f"https://{bucket}.s3.{region}.amazonaws.com"

        endpoint = told.get("endpoint")
        return cls(
            endpoint=address(endpoint),
            public_endpoint=address(told.get("public_endpoint", endpoint)),
            region=region,
            prefix=f"{parts.path.strip('/')}/".lstrip("/") + "uploads/",
            credentials=credentials,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def begin(self, name: str) -> str:
        """The id of a new multipart upload. Raises StagingUnavailable, as everything below does."""
        answer = await self._ask("POST", name, {"uploads": ""})
        return _text(_xml(answer), "UploadId")

    def sign_part(
        self, name: str, multipart_id: str, number: int, *, length: int, content_md5: str | None, lifetime_s: int
    ) -> Signed:
        """Of this length and no other; with `content_md5` (base64) the store refuses other bytes as well."""
        headers = {"Content-Length": str(length)}
        if content_md5 is not None:
            headers["Content-MD5"] = content_md5
        query = {"partNumber": str(number), "uploadId": multipart_id}
        url = self._presigned("PUT", self._public, name, query, headers, lifetime_s)
        return Signed(url, headers)

    async def parts(self, name: str, multipart_id: str) -> list[StagedPart] | None:
        """What has arrived, by number; None when the store knows no such upload (any more)."""
        found: dict[int, StagedPart] = {}  # some servers list a part that was sent twice as two
        after = ""
        for _ in range(MAX_PAGES):
            query = {"uploadId": multipart_id, "max-parts": "1000"} | ({"part-number-marker": after} if after else {})
            try:
                page = _xml(await self._ask("GET", name, query))
            except StagingUnavailable as error:
                if error.status == 404:
                    return None
                raise
            for part in page.iterfind("{*}Part"):
                number = int(_text(part, "PartNumber"))
                found[number] = StagedPart(number, int(_text(part, "Size")), _text(part, "ETag").strip('"'))
            after = page.findtext("{*}NextPartNumberMarker") or ""
            if (page.findtext("{*}IsTruncated") or "") != "true":
                break
        return [found[number] for number in sorted(found)]

    async def finish(self, name: str, multipart_id: str, parts: list[StagedPart]) -> None:
        listed = "".join(
            f'<Part><PartNumber>{part.number}</PartNumber><ETag>"{escape(part.etag)}"</ETag></Part>' for part in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        answer = await self._ask("POST", name, {"uploadId": multipart_id}, body)
        if _xml(answer).tag.endswith("Error"):  # S3 may find out only after it has begun to answer with 200
            raise StagingUnavailable("CompleteMultipartUpload", 500)

    async def abort(self, name: str, multipart_id: str) -> None:
        await self._gone(self._ask("DELETE", name, {"uploadId": multipart_id}))

    async def size(self, name: str) -> int | None:
        """Of a finished object; None when there is none."""
        try:
            answer = await self._ask("HEAD", name, {})
        except StagingUnavailable as error:
            if error.status == 404:
                return None
            raise
        return int(answer.headers["content-length"])

    async def stream(self, name: str, start: int = 0) -> AsyncIterator[bytes]:
        """A finished object from `start` on. Raises StagingUnavailable when the line breaks as well."""
        url = self._presigned("GET", self._endpoint, name, {}, {}, OWN_LIFETIME_S)
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            async with self._client.stream("GET", url, headers=headers) as answer:
                if answer.status_code not in (200, 206):
                    raise StagingUnavailable("GET", answer.status_code)
                async for piece in answer.aiter_bytes(PIECE_BYTES):
                    yield piece
        except httpx.TransportError as error:
            raise StagingUnavailable("GET", None) from error

    async def delete(self, name: str) -> None:
        await self._gone(self._ask("DELETE", name, {}))

    async def unfinished(self) -> list[Unfinished]:
        """Multipart uploads that were begun and never ended, by name."""
        page = _xml(await self._ask("GET", None, {"uploads": "", "prefix": self._prefix, "max-uploads": "1000"}))
        return [
            Unfinished(
                _text(one, "Key").removeprefix(self._prefix),
                _text(one, "UploadId"),
                datetime.fromisoformat(_text(one, "Initiated")),
            )
            for one in page.iterfind("{*}Upload")
        ]

    async def finished(self) -> list[tuple[str, datetime]]:
        """Names of whole objects with the moment of their making: the oldest thousand by name."""
        page = _xml(await self._ask("GET", None, {"list-type": "2", "prefix": self._prefix, "max-keys": "1000"}))
        return [
            (_text(one, "Key").removeprefix(self._prefix), datetime.fromisoformat(_text(one, "LastModified")))
            for one in page.iterfind("{*}Contents")
        ]

    async def _ask(
        self, method: str, name: str | None, query: Mapping[str, str], body: bytes | None = None
    ) -> httpx.Response:
        """Tried again while the store fails: each of these may be done twice (a second start is swept)."""
        status: int | None = None
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(0.2 * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
            url = self._presigned(method, self._endpoint, name, query, {}, OWN_LIFETIME_S)
            try:
                answer = await self._client.request(method, url, content=body)
            except httpx.TransportError:
                status = None
                continue
            status = answer.status_code
            if answer.is_success:
                return answer
            if status < 500 and status != 429:
                break
        raise StagingUnavailable(f"{method} {'&'.join(query)}", status)

    async def _gone(self, asked: Awaitable[httpx.Response]) -> None:
        try:
            await asked
        except StagingUnavailable as error:
            if error.status != 404:
                raise

    def _presigned(
        self,
        method: str,
        endpoint: str,
        name: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        lifetime_s: int,
    ) -> str:
        key = "" if name is None else quote(self._prefix + name, safe="/-_.~")
        return presigned(
            method, f"{endpoint}/{key}", credentials=self._credentials, region=self._region, now=self._now(),
            lifetime_s=lifetime_s, query=query, headers=headers,
        )  # fmt: skip


def _xml(answer: httpx.Response) -> ElementTree.Element:
    """The answer of the store that the installation chose for itself. Expat has limits on entity expansion."""
    try:
        return ElementTree.fromstring(answer.content)  # noqa: S314
    except ElementTree.ParseError as error:
        raise StagingUnavailable("an answer that is no XML", answer.status_code) from error


def _text(element: ElementTree.Element, name: str) -> str:
    found = element.findtext(f"{{*}}{name}")
    if found is None:
        raise StagingUnavailable(f"an answer without {name}", 200)
    return found
