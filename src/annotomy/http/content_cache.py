"""Answers kept in memory by their content, for what never changes under its name.

A key is made of content addresses and of all that shapes the answer, so that nothing here gets out of date. Whoever looks
something up has decided before whether the asker may have it.
"""

from collections import OrderedDict
from typing import Final

import msgspec
from blake3 import blake3

import annotomy

ENTRY_SHARE: Final = 4
"""One answer takes at most the fourth part: a huge one does not push out all others."""


class ContentCache:
    """The answers used last, up to so many bytes. For the event loop alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: str) -> bytes | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: str, body: bytes) -> None:
        if key in self._held or len(body) > self._limit // ENTRY_SHARE:
            return
        self._held[key] = body
        self.size_bytes += len(body)
        while self.size_bytes > self._limit:
            _, dropped = self._held.popitem(last=False)
            self.size_bytes -= len(dropped)


def content_key(*parts: object) -> str:
    """Of all that an answer is made of, and of this version, which may make it otherwise."""
    return blake3(msgspec.json.encode((annotomy.__version__, *parts))).hexdigest(length=16)


def entity_tag(key: str) -> str:
    """Weak, since the same answer goes out packed in several ways (RFC 9110 8.8.1)."""
    return f'W/"{key}"'


def is_current(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has it already (RFC 9110 13.1.2, by weak comparison)."""
    if if_none_match is None:
        return False
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
