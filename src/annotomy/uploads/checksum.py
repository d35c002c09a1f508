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
    """What the client said the chunk hashes to. `update` runs in a thread."""

    def __init__(self, header: str) -> None:
        name, _, encoded = header.strip().partition(" ")
        if name not in CHECKSUMS:
            raise BadRequest(f"Upload-Checksum takes one of {', '.join(CHECKSUMS)}.")
        try:
            self._expected = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise BadRequest("Upload-Checksum takes a digest in base64.") from None
        self._name = name
        self._hash: Any = _new(name)

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(bytes(data) if self._name == "crc32c" else data)

    def matches(self) -> bool:
        return self._hash.digest() == self._expected


def _new(name: str) -> Any:
    if name == "crc32c":
        return google_crc32c.Checksum()
    return blake3() if name == "blake3" else hashlib.new(name)
