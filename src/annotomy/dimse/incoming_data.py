"""The data set of a message while it arrives: in memory when small, else in a file with a DICOM file's head in front.

All associations of a process share one budget of memory; what it does not cover goes to a file, whatever its size. A file
is locked while its writer lives, so that the next start finds and removes those of a killed process.
"""

import asyncio
import contextlib
import fcntl
import secrets
from pathlib import Path
from typing import BinaryIO

IN_MEMORY_BYTES = 16 << 20
"""A larger data set goes to a file while it arrives, as in STOW-RS."""
BUDGET_BYTES = 192 << 20
"""Data sets in memory, of all associations together."""
FILE_PIECE_BYTES = 4 << 20
"""Written in pieces of about this size: a thread's turn for each PDU would cost more than the writing."""
PIECE_COST_BYTES = 256
"""What a piece costs besides its bytes: a sender may cut a data set into single bytes."""
FILE_PREFIX = "dimse-"


class MemoryBudget:
    """Bytes that all associations of the process may hold for data sets that arrive."""

    def __init__(self, limit_bytes: int = BUDGET_BYTES) -> None:
        self._left = limit_bytes

    def take(self, count: int) -> bool:
        if count > self._left:
            return False
        self._left -= count
        return True

    def give(self, count: int) -> None:
        self._left += count


class IncomingData:
    """Add fragments, `finish`, use `data` or `path`, `discard`. Over `limit_bytes` the rest is counted and dropped."""

    def __init__(self, budget: MemoryBudget, *, head: bytes, limit_bytes: int, folder: Path | None) -> None:
        self.size = len(head)
        self.too_large = False
        self.failure: OSError | None = None
        """Why the file could not be written; the rest is dropped then."""
        self.path: Path | None = None
        self._budget = budget
        self._parts: list[bytes | memoryview] = [head]
        self._held = 0
        self._pending = 0
        self._limit_bytes = limit_bytes
        self._folder = folder
        self._file: BinaryIO | None = None

    def add(self, piece: memoryview) -> bool:
        """True when `flush` has to be awaited before more is added."""
        self.size += len(piece)
        if self.size > self._limit_bytes:
            self.too_large = True
        if self.too_large or self.failure is not None:
            return self._pending > 0
        if not piece:
            return False
        cost = len(piece) + PIECE_COST_BYTES
        self._parts.append(piece)
        self._pending += cost
        if self._file is None and self._budget.take(cost):
            self._held += cost
            return self._folder is not None and self._held > IN_MEMORY_BYTES
        if self._folder is None:  # what may not go to a file is small; without memory it is refused
            self.too_large = True
        return self._file is None or self._pending >= FILE_PIECE_BYTES

    async def flush(self) -> None:
        """Moves what is in memory to the file; with nothing to keep, drops it."""
        if self.too_large or self.failure is not None or self._folder is None:
            self._drop_memory()
            return
        parts = self._parts
        try:
            await asyncio.to_thread(self._write, parts)
        except OSError as error:
            self.failure = error
        self._drop_memory()

    async def finish(self) -> None:
        if self._file is not None and self._pending:
            await self.flush()

    def data(self) -> bytes:
        """The whole of it, when it stayed in memory."""
        assert self.path is None
        return b"".join(self._parts)

    def discard(self) -> None:
        """Gives the memory back and removes the file, where the archive has not taken it. Repeatable."""
        self._drop_memory()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self, parts: list[bytes | memoryview]) -> None:
        if self._file is None:
            assert self._folder is not None
            self.path = self._folder / f"{FILE_PREFIX}{secrets.token_hex(16)}"
            self._file = self.path.open("xb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[self._file.write(view) :]

    def _drop_memory(self) -> None:
        self._budget.give(self._held)
        self._held = self._pending = 0
        self._parts = []


def remove_abandoned(folder: Path) -> int:
    """Files of processes that no longer live; returns how many there were."""
    removed = 0
    for path in folder.glob(f"{FILE_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)
            removed += 1
    return removed
