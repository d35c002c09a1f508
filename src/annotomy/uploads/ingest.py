"""What an upload holds: found out by its content, walked within limits, one DICOM file at a time.

Archives and their members are hostile: names are labels only and never paths of ours, and sizes are counted while they
are read, not believed.
"""

import asyncio
import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from annotomy.archive.store import Incoming
from annotomy.jobs.queue import Job
from annotomy.uploads.errors import ArchiveLimit, UnsupportedFile

MAX_ENTRIES = 100_000
MAX_MEMBER_BYTES = 4 << 30
MAX_UNPACKED_RATIO = 200
"""Medical images pack to about a third; a ratio far beyond that is a bomb."""
MAX_UNPACKED_FLOOR_BYTES = 256 << 20
"""Small archives may unpack to this much whatever their ratio."""


class IngestUpload(Job, frozen=True):
    """Take what a finished upload holds into the archive."""

    kind: ClassVar[str] = "ingest-upload"
    upload_id: UUID


def kind_of(path: Path) -> str:
    """dicom, zip, tar, nifti; raises UnsupportedFile."""
    with path.open("rb") as file:
        head = file.read(560)
    if head[:2] == b"\x1f\x8b":
        inner = _gzip_head(path)
        if inner[257:262] == b"ustar":
            return "tar"
        return _plain_kind(inner)
    return _plain_kind(head)


def _plain_kind(head: bytes) -> str:
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    raise UnsupportedFile("The file is neither DICOM, nor ZIP or tar, nor NIfTI.")


def _gzip_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(560)
    except (OSError, EOFError, zlib.error) as error:
        raise UnsupportedFile("The gzip stream is damaged.") from error


def members(path: Path, kind: str) -> Iterator[Incoming]:
    """The files of an archive. Raises ArchiveLimit at a limit and UnsupportedFile for a damaged archive."""
    limit = max(path.stat().st_size * MAX_UNPACKED_RATIO, MAX_UNPACKED_FLOOR_BYTES)
    reader = _zip_members(path, limit) if kind == "zip" else _tar_members(path, limit)
    try:
        yield from reader
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UnsupportedFile("The archive is damaged or of a form that is not read (encrypted, say).") from error


def _zip_members(path: Path, limit: int) -> Iterator[Incoming]:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > MAX_ENTRIES:
            raise ArchiveLimit(f"The archive has more than {MAX_ENTRIES} files.")
        for entry in entries:
            with archive.open(entry) as member:
                data = _bounded(member, limit)
            limit -= len(data)
            yield Incoming(entry.filename, data=data)


def _tar_members(path: Path, limit: int) -> Iterator[Incoming]:
    with tarfile.open(path, "r|*") as archive:  # as a stream: nothing is ever sought or extracted to disk
        for number, entry in enumerate(archive):
            if number >= MAX_ENTRIES:
                raise ArchiveLimit(f"The archive has more than {MAX_ENTRIES} files.")
            member = archive.extractfile(entry) if entry.isreg() else None
            if member is not None:
                data = _bounded(member, limit)
                limit -= len(data)
                yield Incoming(entry.name, data=data)


def _bounded(member: object, limit: int) -> bytes:
    """A member's bytes, counted while they come out."""
    held = io.BytesIO()
    while piece := member.read(1 << 20):  # type: ignore[attr-defined]
        held.write(piece)
        if held.tell() > min(limit, MAX_MEMBER_BYTES):
            raise ArchiveLimit("The archive unpacks to more than is allowed.")
    return held.getvalue()


async def next_member(iterator: Iterator[Incoming]) -> Incoming | None:
    """One step of the walk, off the event loop."""
    return await asyncio.to_thread(next, iterator, None)
