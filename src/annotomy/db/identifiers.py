"""New identifiers for our own rows: UUID version 7 (RFC 9562 5.7), so that they sort by the time of their making.

The 12 bits behind the milliseconds are fractions of one (6.2, method 3), and each is behind the one before it: what one
process makes in a row stays in that order, also within a millisecond or when the clock is set back.
"""

import secrets
import threading
import time
from uuid import UUID

_FRACTIONS = 1 << 12
_lock = threading.Lock()
_last = 0


def new_id() -> UUID:
    global _last
    with _lock:
        _last = ticks = max(time.time_ns() * _FRACTIONS // 1_000_000, _last + 1)
    milliseconds, fraction = divmod(ticks, _FRACTIONS)
    return UUID(
        int=(milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    )
