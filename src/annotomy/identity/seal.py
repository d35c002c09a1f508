"""Secrets that have to be read again (signing keys, authenticator secrets), encrypted at rest with AES-256-GCM.

The key comes from ANNOTOMY_SECRET by HKDF (RFC 5869). Without that setting the values are stored as they are, and the
first byte says so; they are sealed the next time they are written after a secret is set.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PLAIN, SEALED = b"\x00", b"\x01"
NONCE_BYTES = 12


class SealError(RuntimeError):
    """The secret of this installation does not open what lies in its database."""


class Seal:
    def __init__(self, secret: str | None) -> None:
        self._cipher = AESGCM(_derive(secret)) if secret else None

    def close(self, value: bytes, *, purpose: str) -> bytes:
        """`purpose` is bound to the value: what was sealed as one thing does not open as another."""
        if self._cipher is None:
            return PLAIN + value
        nonce = secrets.token_bytes(NONCE_BYTES)
        return SEALED + nonce + self._cipher.encrypt(nonce, value, purpose.encode())

    def open(self, stored: bytes, *, purpose: str) -> bytes:
        if stored[:1] == PLAIN:
            return stored[1:]
        if self._cipher is None:
            raise SealError("the database holds sealed secrets: set ANNOTOMY_SECRET to the value they were sealed with")
        nonce, sealed = stored[1 : 1 + NONCE_BYTES], stored[1 + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, sealed, purpose.encode())
        except InvalidTag as error:
            raise SealError(
                "ANNOTOMY_SECRET is not the value that the secrets in the database were sealed with"
            ) from error


def _derive(secret: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"annotomy secrets at rest").derive(secret.encode())
