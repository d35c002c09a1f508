"""Passwords: argon2id (RFC 9106), hashed in threads behind a cap, and the rules that a new one keeps (NIST SP 800-63B 3.1.1).

Each hash takes 64 MiB; without the cap a flood of logins would take the host's memory.
"""

import asyncio
import functools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from annotomy.identity.errors import WeakPassword

CONCURRENT_HASHES = 2
MIN_LENGTH = 12
MAX_LENGTH = 1024
FEWEST_DISTINCT = 5
"""`abababababab` is long and still one of the first things tried."""

_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
_threads = ThreadPoolExecutor(max_workers=CONCURRENT_HASHES, thread_name_prefix="argon2")
_LOOKALIKES = str.maketrans("013457@$!", "oieastasi")
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "01234567890",
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv",
)


async def hash_password(password: str, *, username: str = "") -> str:
    """Raises WeakPassword."""
    require_strong(password, username=username)
    return await hash_as_given(password)


async def hash_as_given(password: str) -> str:
    """Without the rules: for what the operator of the machine has set."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def password_matches(stored: str | None, password: str) -> bool:
    """Takes the same time whether or not there is a user, so that names cannot be guessed by the clock."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _matches, stored, password[:MAX_LENGTH])


def require_strong(password: str, *, username: str = "") -> None:
    """Length counts, not kinds of characters. Raises WeakPassword."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise WeakPassword(f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.")
    plain = _letters(password)
    if len(set(password.lower())) < FEWEST_DISTINCT or plain in _common_words() or _is_run(password.lower()):
        raise WeakPassword("This password is among the first that are guessed.")
    if username and len(username) > 3 and _letters(password.lower().replace(username.lower(), "")) in ("", plain[:3]):
        raise WeakPassword("The password is little more than the username.")


def _letters(password: str) -> str:
    """`P@ssw0rd2024!!` -> `password`: what is left when figures and signs are taken for letters or dropped, once of
    what is repeated."""
    without_tail = re.sub(r"[\W\d_]+$", "", password.lower())
    word = re.sub(r"[\W\d_]", "", without_tail.translate(_LOOKALIKES))
    for length in range(1, len(word) // 2 + 1):
        if len(word) % length == 0 and word[:length] * (len(word) // length) == word:
            return word[:length]
    return word


def _is_run(password: str) -> bool:
    runs = [run * 4 for run in (*_RUNS, *(run[::-1] for run in _RUNS))]
    return any(password in run for run in runs)


@functools.cache
def _common_words() -> frozenset[str]:
    lines = Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").splitlines()
    words = [line.strip() for line in lines if line and not line.startswith("#")]
    return frozenset(words) | {one + two for one in words[:20] for two in words[:20]} | {""}


def _matches(stored: str | None, password: str) -> bool:
    try:
        return _hasher.verify(stored or _decoy(), password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


@functools.cache
def _decoy() -> str:
    return _hasher.hash("a password that nobody has")
