"""Calls to addresses that a user or a setting may choose, without reaching what only this machine can reach (SSRF).

A name is resolved once, every address it has is checked, and the connection goes to the checked address, so that a second
answer of the name server changes nothing (DNS rebinding); TLS still proves the name. Each redirect is checked like the
first address. Size and time are capped, proxies of the environment are not used.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from annotomy.errors import Problem

MAX_REDIRECTS = 3
MAX_ANSWER_BYTES = 1 << 20
"""Metadata, keys and tokens are some kilobytes."""
TIMEOUT_S = 10.0
"""For the whole call, redirects included: who answers slowly on purpose holds a request for this long."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class EgressRefused(Problem):
    """The address may not be called from this server: it is not public, or not https. An administrator can allow single
    hosts and networks with `ANNOTOMY_EGRESS_ALLOW`."""

    slug = "egress-refused"
    title = "This address may not be called"
    status = 400


class EgressFailed(Problem):
    """The other side could not be reached, or answered with too much, too late or in a way that was not asked for."""

    slug = "egress-failed"
    title = "The other side did not answer properly"
    status = 502


@dataclass(frozen=True, slots=True)
class EgressAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class Egress:
    """`allow` names hosts, addresses and networks that may be called although they are not public, over plain http too."""

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        resolve: Resolve = resolve_by_system,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for one in allow:
            try:
                self._networks.append(ipaddress.ip_network(one, strict=False))
            except ValueError:
                self._names.add(one.lower().rstrip("."))

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> EgressAnswer:
        """Follows redirects. Raises EgressRefused and EgressFailed."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                target = httpx.URL(url)
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self._send("GET", target, headers or {}, None)
                    if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                        return answer
                    target = target.join(answer.headers["location"])
        except TimeoutError as error:
            raise EgressFailed("The other side took too long.") from error
        except httpx.InvalidURL as error:
            raise EgressRefused("This is not an address that can be called.") from error
        raise EgressFailed("The other side redirects too often.")

    async def post_form(
        self, url: str, fields: Mapping[str, str], *, headers: Mapping[str, str] | None = None
    ) -> EgressAnswer:
        """Follows no redirect: what is posted is a secret of whom it is sent to."""
        body = httpx.QueryParams(dict(fields))
        sent = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._send("POST", httpx.URL(url), sent, str(body).encode())
        except TimeoutError as error:
            raise EgressFailed("The other side took too long.") from error
        except httpx.InvalidURL as error:
            raise EgressRefused("This is not an address that can be called.") from error

    async def _send(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes | None) -> EgressAnswer:
        async with self.stream(method, url, headers=headers, content=body, idle_s=TIMEOUT_S) as response:
            return EgressAnswer(response.status_code, response.headers, await _body(response))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str],
        content: bytes | AsyncIterable[bytes] | None = None,
        idle_s: float,
    ) -> AsyncGenerator[httpx.Response]:
        """One request to the checked address, no redirect followed; the caller reads the answer (`aiter_raw`) and caps its
        size and time. `idle_s` is the longest wait for the next bytes. Raises EgressRefused and EgressFailed, also when
        reading inside of the block fails."""
        address = await self._checked_address(url)
        sent = {"Accept-Encoding": "identity", **headers, "Host": url.netloc.decode("ascii")}
        timeout = httpx.Timeout(idle_s, connect=min(idle_s, TIMEOUT_S))
        request = httpx.Request(
            method,
            url.copy_with(host=str(address), fragment=None),
            headers=sent,
            content=content,
            extensions={"sni_hostname": url.host, "timeout": timeout.as_dict()},
        )
        try:
            async with httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
                response = await transport.handle_async_request(request)
                try:
                    yield response
                finally:
                    await response.aclose()
        except httpx.HTTPError as error:
            raise EgressFailed(f"The other side could not be asked: {type(error).__name__}.") from error

    async def _checked_address(self, url: httpx.URL) -> Address:
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise EgressRefused("This is not an address that can be called.")
        port = url.port or (443 if url.scheme == "https" else 80)
        return await self.address_of(url.host, port, encrypted=url.scheme == "https")

    async def address_of(self, name: str, port: int, *, encrypted: bool) -> Address:
        """The checked address of a host, to be connected to in its stead. Raises EgressRefused and EgressFailed."""
        host = name.lower().rstrip(".")
        try:
            found = [ipaddress.ip_address(one.partition("%")[0]) for one in await self._resolve(host, port)]
        except (OSError, UnicodeError, ValueError) as error:
            raise EgressFailed("The host's name has no address.") from error
        if not found:
            raise EgressFailed("The host's name has no address.")
        allowed = host in self._names or all(self._is_allowed(address) for address in found)
        if not allowed and not all(is_public(address) for address in found):
            raise EgressRefused("The address is not public.")
        if not allowed and not encrypted:
            raise EgressRefused("Only https addresses are called.")
        return found[0]

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def is_public(address: Address) -> bool:
    """False for loopback, private, link-local (cloud metadata), shared, reserved and multicast addresses, also when an
    IPv6 address carries an IPv4 one inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and (address in _NAT64 or address in _COMPATIBLE):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if inner is not None and not is_public(inner):
            return False
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


async def _body(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise EgressFailed("The other side compressed its answer although it was not asked to.")
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise EgressFailed("The other side answered with too much.")
        parts.append(part)
    return b"".join(parts)
