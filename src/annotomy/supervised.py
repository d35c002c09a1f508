"""The child side of `annotomy serve`: one process among those that `supervisor.py` starts and watches.

`python -m annotomy.supervised PARENT_FD SETTINGS_FD http LISTEN_FD READY_FD` serves HTTP on a socket that the supervisor
bound; `... PARENT_FD SETTINGS_FD cli worker` runs a command as it would alone. PARENT_FD is a pipe that the supervisor
holds open and never writes: its end of file means that the supervisor is gone, however it died. SETTINGS_FD delivers
the address of the database once it is ready, while the imports are done.
"""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time

import uvicorn
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from annotomy.http.deadlines import DeadlineProtocol

PARENT_LOST_GRACE_S = 3.0
"""What a child may still finish after the supervisor died; the next `serve` waits for the port that long."""

IDLE_DRAIN_S = 1.0
"""How long kept-alive connections are told `Connection: close` before idle ones are cut under a client's hands."""

ANSWER_DRAIN_S = 20.0
"""The longest answer in flight that a stop waits for."""

KEEP_ALIVE_S = 65
"""Longer than the 60 s of common proxies, so that it is the proxy that closes an idle connection."""


def main() -> None:
    parent_fd, settings_fd, kind, *rest = sys.argv[1:]
    threading.Thread(target=_end_with_parent, args=(int(parent_fd),), daemon=True).start()
    if kind == "http":
        from annotomy.app import create_app_from_environment

        _take_settings(int(settings_fd))
        listen_fd, ready_fd = map(int, rest)
        serve_http(create_app_from_environment(), listen_fd, ready_fd)
    else:
        from annotomy.cli import main as command_line

        _take_settings(int(settings_fd))
        command_line(rest)


def _take_settings(settings_fd: int) -> None:
    with os.fdopen(settings_fd) as told:
        text = told.read()
    if not text:
        sys.exit("the supervisor ended before the database was ready")
    os.environ.update(json.loads(text))


def serve_http(app: ASGIApp, listen_fd: int, ready_fd: int) -> None:
    """Serves until SIGTERM; writes one byte to `ready_fd` once requests are answered."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    draining = threading.Event()
    _allow_open_files()
    config = uvicorn.Config(
        _closing(app, draining),
        loop="uvloop",
        http=DeadlineProtocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(ANSWER_DRAIN_S),
    )
    _HttpServer(config, ready_fd, draining).run(sockets=[socket.socket(fileno=listen_fd)])


def _allow_open_files() -> None:
    """As many connections as the system lets this process have: the usual soft limit of 1024 is for other programs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _HttpServer(uvicorn.Server):
    """Tells readiness, and drains before it stops."""

    def __init__(self, config: uvicorn.Config, ready_fd: int, draining: threading.Event) -> None:
        super().__init__(config)
        self._ready_fd = ready_fd
        self._draining = draining

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was made until now lives as long as the process. Walked again and again with the rest, it stopped all requests
        # of the process for a fifth of a second each time.
        gc.collect()
        gc.freeze()
        os.write(self._ready_fd, b"1")
        os.close(self._ready_fd)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._draining.set()
        for server in self.servers:
            server.close()
        deadline = time.monotonic() + IDLE_DRAIN_S
        while self.server_state.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _closing(app: ASGIApp, draining: threading.Event) -> ASGIApp:
    """Adds `Connection: close` to what is answered while draining, so that no client writes into a closing socket."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["draining"] = draining  # endless answers end when they see it set

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and draining.is_set():
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await app(scope, receive, send_closing if scope["type"] == ScopeType.HTTP else send)

    return answer


def _end_with_parent(parent_fd: int) -> None:
    os.read(parent_fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PARENT_LOST_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
