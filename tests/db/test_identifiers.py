"""Our identifiers sort by the time of their making."""

import time

import pytest

from annotomy.db import identifiers
from annotomy.db.identifiers import new_id


def test_identifiers_of_one_process_sort_in_the_order_of_their_making() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_a_clock_that_is_set_back_breaks_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    past = time.time_ns() - 10**12
    monkeypatch.setattr(identifiers.time, "time_ns", lambda: past)
    assert new_id() > before


def test_an_identifier_is_of_version_7_and_tells_when_it_was_made() -> None:
    identifier = new_id()
    assert (identifier.version, identifier.variant) == (7, "specified in RFC 4122")
    assert abs((identifier.int >> 80) / 1000 - time.time()) < 60
