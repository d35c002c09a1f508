"""A tus client that costs next to nothing: the kernel copies from the file to the socket (sendfile)."""

import base64
import os
import socket
from pathlib import Path

from bench.measure import REQUEST_TIMEOUT_S
from bench.servers import Server

VERSION = "Tus-Resumable: 1.0.0\r\n"


class Tus:
    """One connection to one server; `file` is what chunks are read from."""

    def __init__(self, server: Server, file: Path) -> None:
        self._server = server
        self._file = os.open(file, os.O_RDONLY)
        self._size = file.stat().st_size
        self._socket = socket.create_connection((server.host, server.port), timeout=REQUEST_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        self._credential = "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        os.close(self._file)

    def upload(self, name: str, chunk_bytes: int, checksums: list[str] | None) -> str:
        """The whole file; its address."""
        if name == "nginx PUT":
            location = f"{self._server.path}{id(self)}"
            self._send("PUT", location, "", (201, 204), 0, self._size)
            return location
        location = self.create(name, self._size)
        for number, offset in enumerate(range(0, self._size, chunk_bytes)):
            checksum = f"Upload-Checksum: {checksums[number]}\r\n" if checksums else ""
            self.append(location, offset, min(chunk_bytes, self._size - offset), checksum=checksum)
        return location

    def create(self, name: str, length: int | None) -> str:
        metadata = f"filename {base64.b64encode(b'noise').decode()},filetype {base64.b64encode(b'x/y').decode()}"
        if self._server.project_id:
            metadata += f",project_id {base64.b64encode(self._server.project_id.encode()).decode()}"
        told = "Upload-Defer-Length: 1\r\n" if length is None else f"Upload-Length: {length}\r\n"
        headers = self._send("POST", self._server.path, f"{told}Upload-Metadata: {metadata}\r\n", (201,))
        del name
        return headers["location"].removeprefix(f"http://{self._server.host}:{self._server.port}")

    def append(self, location: str, offset: int, length: int, *, source: int | None = None, checksum: str = "") -> None:
        """From `source` in the file (default: the offset)."""
        told = f"Upload-Offset: {offset}\r\nContent-Type: application/offset+octet-stream\r\n{checksum}"
        headers = self._send("PATCH", location, told, (204,), offset if source is None else source, length)
        if headers["upload-offset"] != str(offset + length):
            raise AssertionError(f"offset {headers['upload-offset']} instead of {offset + length}")

    def offset(self, location: str) -> int:
        return int(self._send("HEAD", location, "", (200,))["upload-offset"])

    def forget(self, name: str, location: str) -> None:
        """So that the disk has room for the next; ours may be taking it in, and ends it by itself."""
        self._send("DELETE", location, "", (200, 204, 423) if name == "annotomy" else (200, 204, 404, 405))

    def _send(
        self, method: str, path: str, more: str, statuses: tuple[int, ...], start: int = 0, length: int = 0
    ) -> dict[str, str]:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._server.host}:{self._server.port}\r\n{VERSION}{self._credential}"
        )
        self._socket.sendall(f"{head}{more}Content-Length: {length}\r\n\r\n".encode())
        sent = 0
        self._socket.settimeout(None)
        while sent < length:
            sent += os.sendfile(self._socket.fileno(), self._file, start + sent, length - sent)
        self._socket.settimeout(REQUEST_TIMEOUT_S)
        status = int(self._answers.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self._answers.readline().strip()) != b"":
            key, _, value = line.decode().partition(":")
            headers[key.lower()] = value.strip()
        body = b""
        if method != "HEAD":
            if headers.get("transfer-encoding") == "chunked":
                while (size := int(self._answers.readline(), 16)) > 0:
                    body += self._answers.read(size)
                    self._answers.readline()
                self._answers.readline()
            else:
                body = self._answers.read(int(headers.get("content-length", "0")))
        if status not in statuses:
            raise AssertionError(f"{method} {path}: {status} {body[:300]!r}")
        return headers
