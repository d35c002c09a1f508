"""A line to a store that breaks: connections are reset after some bytes, stall, or are answered with 503."""

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

STALL_S = 3.0
"""Long enough to be seen as a pause, and then the line is cut."""


class FaultProxy:
    """Forwards bytes, so that signatures hold: clients and server both know the store by this address."""

    def __init__(self, target: str, chance: random.Random) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None and parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._chance = chance
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.faults = False
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()

    def taken(self) -> int:
        """Faults since this was asked last."""
        with self._lock:
            count, self._count = self._count, 0
        return count

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with line, contextlib.suppress(OSError), socket.create_connection(self._target) as store:
            fault = self._chance.choice(["", "", "reset", "stall", "503"]) if self.faults else ""
            limit = self._chance.randint(0, 6 << 20) if fault in ("reset", "stall") else None
            if fault:
                with self._lock:
                    self._count += 1
            if fault == "503":
                line.recv(1 << 16)
                line.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                _reset(line)
                return

            def cut() -> None:
                if fault == "stall":
                    threading.Event().wait(STALL_S)
                _reset(line)
                store.close()

            back = threading.Thread(target=_pump, args=(store, line, None, cut), daemon=True)
            back.start()
            _pump(line, store, limit, cut)
            back.join()


def _pump(source: socket.socket, target: socket.socket, limit: int | None, cut: Callable[[], None]) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            passed += len(data)
            if limit is not None and passed > limit:
                cut()
                return
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reset(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()
