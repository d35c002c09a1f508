"""Admission: how many requests of one principal are answered at once, and how many in a second.

Counted in each process by itself: no request pays for a counter that all share. With N processes a principal gets up to N
times as much, which is still a bound.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from annotomy.errors import TooManyRequests

MAX_IN_FLIGHT = 256
"""Requests of one principal at once in one process. Viewers use some dozens; a loop without a bound meets it."""
BURST_S = 5.0
"""A principal that was quiet may use the allowance of so many seconds at once."""
MAX_TRACKED = 10_000
"""Principals remembered by each process; the one that was quiet for longest is forgotten first."""


@dataclass(slots=True)
class _Account:
    in_flight: int = 0
    allowance: float = 0.0
    counted_at: float = 0.0


class Admission:
    """`rate` is requests a second for each principal; 0 is no limit."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._accounts: OrderedDict[object, _Account] = OrderedDict()

    @contextmanager
    def admitted(self, principal: object) -> Generator[None]:
        """One request of the principal, in the block. Raises TooManyRequests."""
        account = self._account(principal)
        if account.in_flight >= MAX_IN_FLIGHT:
            raise TooManyRequests("Too many of your requests are being answered at once.", retry_after_s=1)
        self._spend(account)
        account.in_flight += 1
        try:
            yield
        finally:
            account.in_flight -= 1

    def _spend(self, account: _Account) -> None:
        if self._rate == 0:
            return
        now = self._clock()
        account.allowance = min(self._rate * BURST_S, account.allowance + (now - account.counted_at) * self._rate)
        account.counted_at = now
        if account.allowance < 1:
            raise TooManyRequests("You ask faster than is allowed here.", retry_after_s=1)
        account.allowance -= 1

    def _account(self, principal: object) -> _Account:
        account = self._accounts.get(principal)
        if account is None:
            account = _Account(allowance=self._rate * BURST_S, counted_at=self._clock())
            self._accounts[principal] = account
            while len(self._accounts) > MAX_TRACKED:
                quiet = next((one for one, held in self._accounts.items() if held.in_flight == 0), None)
                if quiet is None:
                    break
                del self._accounts[quiet]
        self._accounts.move_to_end(principal)
        return account
