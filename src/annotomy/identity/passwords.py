"""Passwords: argon2id (RFC 9106), hashed in threads behind a cap.

Each hash takes 64 MiB; without the cap a flood of logins would take the host's memory.
"""

import asyncio
import functools

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from annotomy.errors import BadRequest

CONCURRENT_HASHES = 2
MIN_LENGTH = 8
MAX_LENGTH = 1024

_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
_slots = asyncio.Semaphore(CONCURRENT_HASHES)


async def hash_password(password: str) -> str:
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise BadRequest(f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.")
    async with _slots:
        return await asyncio.to_thread(_hasher.hash, password)


async def password_matches(stored: str | None, password: str) -> bool:
    """Takes the same time whether or not there is a user, so that names cannot be guessed by the clock."""
    if len(password) > MAX_LENGTH:
        return False
    async with _slots:
        return await asyncio.to_thread(_matches, stored, password)


def _matches(stored: str | None, password: str) -> bool:
    try:
        return _hasher.verify(stored or _decoy(), password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


@functools.cache
def _decoy() -> str:
    return _hasher.hash("a password that nobody has")
