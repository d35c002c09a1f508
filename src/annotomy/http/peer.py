"""Who is at the other end of a request: address, program, scheme; and whether a page of ours sent it.

Behind a proxy the address is what the nearest proxy that is trusted says; what others put into X-Forwarded-* is ignored.
"""

import functools
import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from litestar import Request

from annotomy.errors import Forbidden
from annotomy.settings import HttpSettings

MAX_AGENT_CHARACTERS = 200
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Peer:
    address: str
    agent: str
    """User-Agent, shortened."""
    is_secure: bool
    """Over TLS, as far as the browser is concerned: only then it keeps `Secure` cookies."""
    host: str
    """The Host header, which names what the browser believes to speak to."""
    origin: str | None
    fetch_site: str | None
    """Sec-Fetch-Site, which pages cannot set."""


def peer_of(request: Request[Any, Any, Any], settings: HttpSettings) -> Peer:
    headers = request.headers
    is_secure = request.url.scheme == "https"
    if settings.trusted_proxies and _is_trusted(_direct(request), settings.trusted_proxies):
        is_secure = headers.get("x-forwarded-proto", request.url.scheme).split(",")[-1].strip() == "https"
    return Peer(
        address=address_of(request, settings),
        agent=headers.get("user-agent", "")[:MAX_AGENT_CHARACTERS],
        is_secure=is_secure,
        host=headers.get("host", ""),
        origin=headers.get("origin"),
        fetch_site=headers.get("sec-fetch-site"),
    )


def address_of(request: Request[Any, Any, Any], settings: HttpSettings) -> str:
    """Walks X-Forwarded-For from the right as long as who wrote it is trusted."""
    address = _direct(request)
    if not settings.trusted_proxies:
        return address
    for named in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        if not _is_trusted(address, settings.trusted_proxies):
            break
        try:
            address = str(ipaddress.ip_address(named.strip()))
        except ValueError:
            break
    return address


def require_own_page(peer: Peer, settings: HttpSettings) -> None:
    """For what a cookie alone authorises. Raises Forbidden unless the request comes from a page of this server.

    Browsers set Origin on every POST and pages cannot change it; a program that has a cookie jar but sends none has the
    body of the request to use instead of the cookie.
    """
    if peer.origin is not None:
        own = settings.public_url
        is_own = peer.origin == own if own else urlsplit(peer.origin).netloc == peer.host
        if is_own and peer.origin != "null":
            return
    elif peer.fetch_site == "same-origin":
        return
    raise Forbidden("The request does not come from a page of this server.")


def public_origin(settings: HttpSettings, host: str = "") -> str:
    """The address of this server in a browser. The Host header is believed for names of this very machine alone:
    anywhere else it could be chosen by who asks, and end in a mail."""
    if settings.public_url:
        return settings.public_url
    if host and (urlsplit(f"//{host}").hostname or "") in LOOPBACK_NAMES:
        return f"http://{host}"
    return f"http://{settings.host}:{settings.port}"


def _direct(request: Request[Any, Any, Any]) -> str:
    client = request.scope.get("client")
    return client[0] if client else ""


@functools.lru_cache(maxsize=1024)
def _is_trusted(address: str, trusted: tuple[str, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network, strict=False) for network in trusted)
