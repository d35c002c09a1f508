"""Fixtures of the tests of remotes."""

from tests.remotes.hospital import hospital

__all__ = ["hospital"]
