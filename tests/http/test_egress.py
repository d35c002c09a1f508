"""The egress guard: what is not public is not called, by no spelling, no redirect and no second answer of a name server."""

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotomy.http.egress import MAX_ANSWER_BYTES, Egress, EgressFailed, EgressRefused, is_public

NOT_PUBLIC = [
    "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254",
    "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "0.0.0.0",  # noqa: S104 - to be refused, not to be bound
    "2002:7f00:1::", "::127.0.0.1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_an_address_that_is_not_public_is_not_called(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(EgressRefused):
        await Egress().get(f"https://{host}/")


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(network="127.0.0.0/8") | st.ip_addresses(network="10.0.0.0/8"))
def test_a_private_address_in_any_ipv6_clothes_is_not_public(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for clothes in (number, 0xFFFF << 32 | number, 0x0064FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert not is_public(ipaddress.IPv6Address(clothes))


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "localhost."])
async def test_other_spellings_of_loopback_are_not_called(host: str) -> None:
    with pytest.raises((EgressRefused, EgressFailed)):
        await Egress().get(f"https://{host}/")


@pytest.mark.parametrize(
    "url", ["ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "https://user:pass@8.8.8.8/", "https:///", "x"]
)
async def test_only_plain_web_addresses_are_called(url: str) -> None:
    with pytest.raises(EgressRefused):
        await Egress(resolve=_answers("8.8.8.8")).get(url)


async def test_plain_http_is_for_what_is_allowed_by_name() -> None:
    with pytest.raises(EgressRefused):
        await Egress(resolve=_answers("8.8.8.8")).get("http://public.example/")


async def test_a_name_with_one_bad_address_among_good_ones_is_not_called() -> None:
    with pytest.raises(EgressRefused):
        await Egress(resolve=_answers("8.8.8.8", "127.0.0.1")).get("https://two-faced.example/")


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A name server that answers something else the second time (DNS rebinding) is not asked a second time."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with _server([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]) as (port, seen):
        answer = await Egress(["rebinding.example"], resolve=resolve).get(f"http://rebinding.example:{port}/path")
    assert (answer.status, answer.body, asked) == (200, b"ok", ["rebinding.example"])
    assert f"host: rebinding.example:{port}" in seen[0].lower()


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/", "https://10.0.0.1/", "http://other.example/", "file:///x"]
)
async def test_each_redirect_is_checked(target: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "allowed.example" else [host] if host[0].isdigit() else ["8.8.8.8"]

    redirect = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    async with _server([redirect]) as (port, _):
        with pytest.raises(EgressRefused):
            await Egress(["allowed.example"], resolve=resolve).get(f"http://allowed.example:{port}/")


async def test_three_redirects_are_followed_and_no_more() -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n"
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with _server([redirect] * 3 + [good]) as (port, _):
        assert (await Egress(["127.0.0.1"]).get(f"http://127.0.0.1:{port}/")).body == b"ok"
    async with _server([redirect] * 4) as (port, seen):
        with pytest.raises(EgressFailed):
            await Egress(["127.0.0.1"]).get(f"http://127.0.0.1:{port}/")
    assert len(seen) == 4


async def test_a_post_follows_no_redirect() -> None:
    redirect = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n"
    async with _server([redirect]) as (port, seen):
        answer = await Egress(["127.0.0.1"]).post_form(f"http://127.0.0.1:{port}/", {"code": "secret"})
    assert answer.status == 307
    assert len(seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 1),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbomb",
        b"not http at all\r\n\r\n",
    ],
)
async def test_too_much_or_compressed_or_broken_answers_are_refused(answer: bytes) -> None:
    async with _server([answer]) as (port, _):
        with pytest.raises(EgressFailed):
            await Egress(["127.0.0.1"]).get(f"http://127.0.0.1:{port}/")


async def test_who_answers_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotomy.http.egress.TIMEOUT_S", 0.2)
    async with _server([b""]) as (port, _):
        with pytest.raises(EgressFailed):
            await Egress(["127.0.0.1"]).get(f"http://127.0.0.1:{port}/")


def _answers(*addresses: str):
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@asynccontextmanager
async def _server(answers: list[bytes]) -> AsyncGenerator[tuple[int, list[str]]]:
    """Answers one connection after the other with the given bytes; an empty answer keeps silent."""
    seen: list[str] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        answer = left.pop(0)
        if not answer:
            await reader.read()
        writer.write(answer)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
