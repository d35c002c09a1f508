"""The cursor of a QIDO-RS page: where it goes on, sealed.

A position holds values of patients (a name, a number, a day) and a cursor stands in addresses, which logs and proxies keep:
so it is encrypted, and bound to the query that it goes on with. AES-256-GCM with a key derived from the installation's own;
a cursor is good on every process and host of it, for as long as that key is.
"""

import base64
import binascii
import secrets
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from annotomy.archive.order import Key, Position, position_from
from annotomy.archive.query import Query
from annotomy.db.engine import Database
from annotomy.errors import BadRequest

NONCE_BYTES = 12
MAX_CURSOR_LETTERS = 4096
"""Names, identifiers and UIDs of one row, encoded."""


def seal(db: Database, asked: Query, position: Position) -> str:
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = _cipher(db).encrypt(nonce, msgspec.json.encode(position), _bound_to(asked))
    return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")


def open_cursor(db: Database, asked: Query, order: tuple[Key, ...], cursor: str) -> Position:
    """Raises BadRequest for a cursor that is not ours, or is of another query."""
    try:
        raw = base64.urlsafe_b64decode(cursor[:MAX_CURSOR_LETTERS] + "=" * (-len(cursor) % 4))
        told: list[Any] = msgspec.json.decode(
            _cipher(db).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound_to(asked)), type=list[Any]
        )
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise BadRequest("This cursor does not belong to this query.") from error
    return position_from(order, told)


def _bound_to(asked: Query) -> bytes:
    """The rows and their order; how many of them make a page may change on the way."""
    order = [(one.keyword, one.descending) for one in asked.order]
    return msgspec.json.encode([asked.level, sorted(asked.match.items()), order])


def _cipher(db: Database) -> AESGCM:
    assert db.audit_key is not None, "the server has a key"
    return AESGCM(blake3(db.audit_key, derive_key_context="annotomy 2026 cursors of QIDO-RS").digest())
