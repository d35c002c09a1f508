"""A network line between a client and a server that goes dead after some bytes, and comes back."""

import socket
import threading
from contextlib import suppress

PIECE_BYTES = 64 << 10


class Line:
    """Forwards TCP to `target`. `address` has its scheme, as `target` has."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._turn = threading.Condition()
        self._left: int | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def go_dead_after(self, sent_bytes: int) -> None:
        """So many more bytes reach the server; then nothing moves towards it, and nobody is told."""
        with self._turn:
            self._left = sent_bytes

    def wait_until_dead(self, timeout_s: float) -> None:
        with self._turn:
            assert self._turn.wait_for(lambda: self._left == 0, timeout_s), "the line still has room"

    def come_back(self) -> None:
        """Connections that were open are broken; new ones work."""
        with self._turn:
            broken, self._open, self._left = self._open, set(), None
            self._turn.notify_all()
        for one in broken:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.come_back()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                with self._turn:
                    self._open |= {client, server}
                for source, sink, metered in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, sink, metered), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, metered: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                passed = self._room_for(piece) if metered else piece
                sink.sendall(passed)
                if len(passed) < len(piece):
                    self._stay_dead()
                    break  # the rest is lost: nothing may follow it
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _room_for(self, piece: bytes) -> bytes:
        with self._turn:
            if self._left is None:
                return piece
            passed = piece[: self._left]
            self._left -= len(passed)
            self._turn.notify_all()
            return passed

    def _stay_dead(self) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._left is None)
