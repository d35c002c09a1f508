"""What protects the server before a feature is asked: deadlines, admission, headers."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotomy.errors import RequestTooSlow, TooManyRequests
from annotomy.http import admission, deadlines
from annotomy.http.admission import Admission
from annotomy.http.deadlines import timely
from tests.support.application import Application
from tests.support.serve import Serve

HALF_SENT = 2000
"""Enough to starve a server that waits for each; the nightly run opens more."""
SLOWEST_S = 2.0


def test_half_sent_requests_are_ended_and_do_not_hold_up_a_good_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    _half_sent(tmp_path_factory.mktemp("half") / "data", HALF_SENT)


@pytest.mark.long
def test_ten_thousand_half_sent_requests_are_ended(tmp_path_factory: pytest.TempPathFactory) -> None:
    _half_sent(tmp_path_factory.mktemp("half") / "data", 10_000)


def _half_sent(data: Path, count: int) -> None:
    serve = Serve(data).start()
    sockets: list[socket.socket] = []
    try:
        host, port = serve.address.removeprefix("http://").split(":")
        for _ in range(count):
            one = socket.create_connection((host, int(port)), timeout=30)
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: annotomy\r\nX-Slow: ")
            sockets.append(one)
        began = time.monotonic()
        assert httpx.get(f"{serve.address}/livez", timeout=30).status_code == 200
        assert time.monotonic() - began < SLOWEST_S, "a good request waits behind those that never end"
        last = sockets[-1]
        last.settimeout(deadlines.HEADER_LIMIT_S * 3)
        answer = b""
        while piece := last.recv(1024):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 408")
        assert httpx.get(f"{serve.address}/livez", timeout=30).status_code == 200
    finally:
        for one in sockets:
            one.close()
        serve.stop()


async def test_a_body_that_stops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "BODY_IDLE_LIMIT_S", 0.01)
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]
    never = asyncio.Event()

    async def receive() -> Any:
        if not messages:
            await never.wait()
        return messages.pop()

    receive_in_time = timely(receive)
    await receive_in_time()
    with pytest.raises(RequestTooSlow):
        await receive_in_time()


async def test_a_body_that_crawls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "BODY_GRACE_S", -1.0)
    monkeypatch.setattr(deadlines, "BODY_LEAST_BYTES_PER_S", 1 << 60)

    async def receive() -> Any:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(RequestTooSlow):
        await timely(receive)()


async def test_waiting_for_the_client_to_leave_has_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is answered listens for the disconnect for as long as it lasts."""
    left = asyncio.Event()
    messages: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    receive_in_time: Any = timely(receive)
    monkeypatch.setattr(deadlines, "BODY_IDLE_LIMIT_S", 5.0)
    await receive_in_time()
    monkeypatch.setattr(deadlines, "BODY_IDLE_LIMIT_S", 0.0)
    waiting = asyncio.ensure_future(receive_in_time())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    left.set()
    assert (await waiting)["type"] == "http.disconnect"


def test_a_principal_has_a_bound_of_requests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_IN_FLIGHT", 2)
    door = Admission(rate=0)
    with door.admitted("a"), door.admitted("a"):
        with pytest.raises(TooManyRequests), door.admitted("a"):
            pass
        with door.admitted("b"):
            pass
    with door.admitted("a"):
        pass


def test_a_principal_has_a_rate_with_a_burst() -> None:
    now = 100.0
    door = Admission(rate=2, clock=lambda: now)

    def asked(times: int) -> int:
        passed = 0
        for _ in range(times):
            try:
                with door.admitted("a"):
                    passed += 1
            except TooManyRequests:
                pass
        return passed

    assert asked(20) == 2 * admission.BURST_S
    now += 1.0
    assert asked(20) == 2
    now += 3600
    assert asked(20) == 2 * admission.BURST_S


def test_quiet_principals_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_TRACKED", 3)
    door = Admission(rate=1)
    with door.admitted("busy"):
        for number in range(50):
            with door.admitted(number):
                pass
        assert len(door._accounts) == 3  # pyright: ignore[reportPrivateUsage]
        assert "busy" in door._accounts  # pyright: ignore[reportPrivateUsage]


async def test_too_many_requests_say_when_to_come_back(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await application.headers("owner")
    monkeypatch.setattr(admission, "MAX_IN_FLIGHT", 0)
    answer = await application.client.get("/api/v1/projects", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["type"].endswith("too-many-requests")


async def test_answers_are_private_and_frame_nothing(application: Application) -> None:
    answer = await application.client.get("/api/v1/projects", headers=await application.headers("owner"))
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


async def test_no_other_site_may_read_answers(application: Application) -> None:
    preflight = await application.client.options(
        "/api/v1/projects", headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    )
    assert "access-control-allow-origin" not in preflight.headers


async def test_a_request_id_that_could_forge_a_log_line_is_not_taken(application: Application) -> None:
    for given, taken in (("abc-1.2_3", True), ('a" status=200', False), ("x" * 65, False), ("", False)):
        answer = await application.client.get("/api/v1/auth/ways", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is taken
        assert answer.headers["x-request-id"]
