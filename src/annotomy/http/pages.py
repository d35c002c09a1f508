"""Lists: `?limit=&cursor=` answered by `{"items", "next", "total"}`. Cursors are keyset positions, opaque to clients."""

import base64
import binascii
from typing import Generic, TypeVar

import msgspec

from annotomy.errors import BadRequest

T = TypeVar("T")

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
"""A page is built in memory; above this a client pages on."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    items: list[T]
    next: str | None
    """Pass as `cursor` to get the following page; null on the last."""
    total: int | None
    """All that matches and the asker may see; null where counting would cost more than the page."""


def encode_cursor(*position: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: tuple[type, ...]) -> tuple[object, ...]:
    """The position again, each part checked against its type. Raises BadRequest for a cursor that is not ours."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        parts = msgspec.json.decode(raw, type=list[object])
        if len(parts) != len(kinds):
            raise BadRequest("This cursor does not belong to this list.")
        return tuple(msgspec.convert(part, kind) for part, kind in zip(parts, kinds, strict=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadRequest("This cursor does not belong to this list.") from error
