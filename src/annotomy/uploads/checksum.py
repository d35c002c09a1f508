"""`Upload-Checksum: algorithm base64` (tus 1.0, checksum extension): the digest of one chunk."""

import base64
import binascii
import hashlib
from typing import Any

import google_crc32c
from blake3 import blake3

from annotomy.errors import BadRequest

CHECKSUMS = ("sha256", "sha1", "crc32c", "blake3")


class Checksum:
    """What the client said the chunk hashes to."""

    def __init__(self, header: str) -> None:
        name, _, encoded = header.strip().partition(" ")
        if name not in CHECKSUMS:
            raise BadRequest(f"Upload-Checksum takes one of {', '.join(CHECKSUMS)}.")
        try:
            self._expected = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise BadRequest("Upload-Checksum takes a digest in base64.") from None
        self.of_pieces = name == "crc32c"
        """It takes `bytes` alone and keeps the interpreter to itself, but costs 10 us for each piece of 64 KiB: less than
        the copy that a thread would need. The others cost ten times as much, and let other threads run."""
        self._hash: Any = _new(name)

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(data)

    def matches(self) -> bool:
        return self._hash.digest() == self._expected


def _new(name: str) -> Any:
    if name == "crc32c":
        return google_crc32c.Checksum()
    return blake3() if name == "blake3" else hashlib.new(name)
