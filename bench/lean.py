"""A client that costs little beside the server that it measures: requests encoded before the clock starts, answers checked
after it has stopped.

Server and client share the cores, so what the client spends is taken from the server that is faster: a client of threads
that parses every body on the way measures itself.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from bench.measure import REQUEST_TIMEOUT_S, Request, Sample, cpu_seconds
from bench.servers import Server


def send_lean(server: Server, requests: Sequence[Request], *, connections: int = 1) -> Sample:
    """Every request once, divided over the connections. Raises AssertionError for the first wrong answer."""
    encoded = [_encoded(server, request) for request in requests]
    before = cpu_seconds(server)
    seconds, answers = uvloop.run(_all(server, encoded, connections))
    cpu = cpu_seconds(server) - before
    for request, (status, body, _) in zip(requests, answers, strict=True):
        wrong = request.check(status, body)
        if wrong:
            raise AssertionError(f"{server.name} {request.method} {request.path}: {wrong}")
    received, sent = sum(len(body) for _, body, _ in answers), sum(len(request.body or b"") for request in requests)
    return Sample(seconds, cpu, [took for _, _, took in answers], received, sent)


def _encoded(server: Server, request: Request) -> bytes:
    headers = {"Host": f"{server.host}:{server.port}", **server.headers, **request.headers}
    if request.body is not None:
        headers["Content-Length"] = str(len(request.body))
    lines = [f"{request.method} {server.path}{request.path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (request.body or b"")


async def _all(
    server: Server, encoded: Sequence[bytes], connections: int
) -> tuple[float, list[tuple[int, bytes, float]]]:
    """Seconds, and for each request its status, body and milliseconds."""
    loop = asyncio.get_running_loop()
    answers: dict[int, tuple[int, bytes, float]] = {}
    waiting = iter(range(len(encoded)))
    opened = [(await loop.create_connection(_Connection, server.host, server.port))[1] for _ in range(connections)]

    async def client(connection: _Connection) -> None:
        for number in waiting:
            started = time.perf_counter()
            status, body = await asyncio.wait_for(connection.ask(encoded[number]), REQUEST_TIMEOUT_S)
            answers[number] = status, body, 1000 * (time.perf_counter() - started)

    started = time.perf_counter()
    try:
        await asyncio.gather(*(client(connection) for connection in opened))
    finally:
        for connection in opened:
            connection.close()
    return time.perf_counter() - started, [answers[number] for number in range(len(encoded))]


class _Connection(asyncio.Protocol):
    """One request at a time; answers carry a Content-Length."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = -1  # bytes of the body that have not come; -1 while the head has not
        self._status = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.WriteTransport = transport

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            data = b"".join([*self._parts, data])
            head, ended, rest = data.partition(b"\r\n\r\n")
            self._parts = [data] if not ended else [rest]
            if not ended:
                return
            lines = head.lower().split(b"\r\n")
            self._status = int(lines[0].split()[1])
            length = next((line[15:] for line in lines if line.startswith(b"content-length:")), None)
            if length is None:
                self.connection_lost(OSError("an answer without Content-Length"))
                return
            self._missing = int(length) - len(rest)
        else:
            self._parts.append(data)
            self._missing -= len(data)
        if self._missing == 0 and self._answer is not None:
            answer, body = self._answer, b"".join(self._parts)
            self._answer, self._parts, self._missing = None, [], -1
            answer.set_result((self._status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))
