"""multipart/related (RFC 2387, PS3.18 8.6): parts out of a stream of bytes, and parts into one.

The reader never holds more than one piece of the stream and one part's header: a part's body is passed on as it comes.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

MAX_PART_HEADER_BYTES = 16 << 10
"""Real part headers are a few hundred bytes."""


class MultipartError(ValueError):
    """The body is not the multipart message that its Content-Type announces."""


@dataclass
class Part:
    """One part: its header, and its body as an iterator that must be read to its end before the next part."""

    headers: dict[str, str]
    body: AsyncIterator[bytes]


def boundary_of(content_type: str) -> str:
    """The boundary parameter of a Content-Type. Raises MultipartError without one."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "boundary" and 1 <= len(value.strip('"')) <= 70:  # RFC 2046 5.1.1
            return value.strip('"')
    raise MultipartError("The Content-Type names no boundary.")


@dataclass
class _Buffer:
    source: AsyncIterator[bytes]
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    async def more(self) -> bool:
        """Takes the next piece of the stream; False at its end."""
        async for piece in self.source:
            if piece:
                self.data += piece
                return True
        self.ended = True
        return False


async def read_parts(source: AsyncIterator[bytes], boundary: str) -> AsyncIterator[Part]:
    """Raises MultipartError when the message is malformed or ends before its closing boundary."""
    buffer = _Buffer(source)
    delimiter = b"\r\n--" + boundary.encode()
    buffer.data += b"\r\n"  # the first boundary may stand at the very start
    await _skip_to(buffer, delimiter)
    while not await _is_closing(buffer):
        headers = await _headers(buffer)
        body = _body(buffer, delimiter)
        yield Part(headers, body)
        async for _ in body:
            pass  # what the caller left unread


async def _skip_to(buffer: _Buffer, delimiter: bytes) -> None:
    while (at := buffer.data.find(delimiter)) < 0:
        del buffer.data[: -len(delimiter)]
        if not await buffer.more():
            raise MultipartError("The body holds no part.")
    del buffer.data[: at + len(delimiter)]


async def _is_closing(buffer: _Buffer) -> bool:
    while len(buffer.data) < 2:
        if not await buffer.more():
            raise MultipartError("The body ends inside a boundary.")
    return buffer.data.startswith(b"--")


async def _headers(buffer: _Buffer) -> dict[str, str]:
    while (end := buffer.data.find(b"\r\n\r\n")) < 0:
        if len(buffer.data) > MAX_PART_HEADER_BYTES or not await buffer.more():
            raise MultipartError("A part's header has no end.")
    lines = bytes(buffer.data[:end]).decode("latin-1").split("\r\n")
    del buffer.data[: end + 4]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(buffer: _Buffer, delimiter: bytes) -> AsyncIterator[bytes]:
    searched = 0
    while True:
        at = buffer.data.find(delimiter, max(0, searched - len(delimiter)))
        if at >= 0:
            if at:
                yield bytes(buffer.data[:at])
            del buffer.data[: at + len(delimiter)]
            return
        sure = len(buffer.data) - len(delimiter)  # a delimiter may begin in the last bytes
        if sure > 0:
            yield bytes(buffer.data[:sure])
            del buffer.data[:sure]
        searched = len(buffer.data)
        if not await buffer.more():
            raise MultipartError("The body ends before its closing boundary.")


def part_head(boundary: str, headers: Iterable[tuple[str, str]], *, first: bool) -> bytes:
    """What stands before a part's body when one writes a message."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{'' if first else chr(13) + chr(10)}--{boundary}\r\n{lines}\r\n".encode()


def message_end(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()
