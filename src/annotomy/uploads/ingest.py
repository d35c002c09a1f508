"""What an upload holds: found out by its content, walked within limits, one DICOM file at a time.

Archives and their members are hostile: names are labels only and never paths of ours, and sizes are counted while they
are read, not believed. What is larger than a few MiB goes through a file beside the upload, never through memory.
"""

import asyncio
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, ClassVar, Final
from uuid import UUID

import zstandard

from annotomy.archive.store import Incoming
from annotomy.jobs.queue import Job
from annotomy.uploads.errors import ArchiveLimit, UnsupportedFile
from annotomy.uploads.unfold import kind_of_content

MAX_ENTRIES: Final = 100_000
"""Files and folders of one archive; each file has a line in the upload's report."""
MAX_MEMBER_BYTES: Final = 4 << 30
"""One file of an archive, unpacked."""
MAX_UNPACKED_RATIO: Final = 200
"""Medical images pack to about a third; a ratio far beyond that is a bomb."""
MAX_UNPACKED_FLOOR_BYTES: Final = 256 << 20
"""Small archives may unpack to this much whatever their ratio."""
IN_MEMORY_BYTES: Final = 16 << 20
"""A larger member goes to a file while it is unpacked."""
MAX_DIRECTORY_BYTES: Final = 64 << 20
"""A ZIP's central directory is read into memory at once: 100,000 entries with names of some hundred bytes."""
MAX_EXTENDED_HEADER_BYTES: Final = 1 << 20
"""A tar entry's long name or extended header is read into memory at once; paths have at most 4 KiB."""
MAX_NAME_CHARACTERS: Final = 1024
MAX_ZSTD_WINDOW_BYTES: Final = 128 << 20
"""What a zstd stream may have remembered while it is unpacked: the largest that `zstd --ultra` makes without `--long`."""
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class IngestUpload(Job, frozen=True):
    """Take what a finished upload holds into the archive."""

    kind: ClassVar[str] = "ingest-upload"
    upload_id: UUID


def kind_of(path: Path) -> str:
    """dicom, zip, tar, nifti, nrrd, metaimage, picture; raises UnsupportedFile."""
    with path.open("rb") as file:
        head = file.read(560)
    if head[:2] == b"\x1f\x8b":
        inner = _gzip_head(path)
        if inner[257:262] == b"ustar":
            return "tar"
        kind = _plain_kind(inner)
        if kind != "nifti":
            raise UnsupportedFile("Of files packed by gzip, tar and NIfTI are taken in.")
        return kind
    if head[:4] == ZSTD_MAGIC:
        if _zstd_head(path)[257:262] != b"ustar":
            raise UnsupportedFile("Of files packed by zstd, tar is taken in.")
        return "tar"
    return _plain_kind(head)


def _plain_kind(head: bytes) -> str:
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    kind = kind_of_content(head, "")
    if kind in ("nifti", "nrrd", "metaimage", "picture"):
        return kind
    raise UnsupportedFile("The file is neither DICOM, nor ZIP or tar, nor NIfTI, NRRD, MetaImage or a picture.")


def _zstd_head(path: Path) -> bytes:
    try:
        with _zstd_reader(path) as file:
            return file.read(560)
    except zstandard.ZstdError as error:
        raise UnsupportedFile("The zstd stream is damaged, or wants more memory than it is given.") from error


def _zstd_reader(path: Path) -> Any:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
    return decompressor.stream_reader(path.open("rb"), read_across_frames=True, closefd=True)


def _gzip_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(560)
    except (OSError, EOFError, zlib.error) as error:
        raise UnsupportedFile("The gzip stream is damaged.") from error


def members(path: Path, kind: str) -> Iterator[Incoming]:
    """The files of an archive. Raises ArchiveLimit at a limit and UnsupportedFile for a damaged archive.

    A member's file on disk is gone with the next step; whoever wants it moves it away before.
    """
    limit = max(path.stat().st_size * MAX_UNPACKED_RATIO, MAX_UNPACKED_FLOOR_BYTES)
    reader = _zip_members(path, limit) if kind == "zip" else _tar_members(path, limit)
    try:
        yield from reader
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
        struct.error, OverflowError, gzip.BadGzipFile, zstandard.ZstdError,
    ) as error:  # fmt: skip
        raise UnsupportedFile("The archive is damaged or of a form that is not read (encrypted, say).") from error


def _zip_members(path: Path, limit: int) -> Iterator[Incoming]:
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > MAX_ENTRIES:
            raise ArchiveLimit(f"The archive has more than {MAX_ENTRIES} files.")
        for entry in entries:
            # Other methods (bzip2, LZMA) reserve memory as the file says before a byte comes out.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnsupportedFile("Of ZIP files, those packed by deflate or not at all are taken in.")
            with archive.open(entry) as member:
                unpacked = _Unpacked(path, member, limit)
            limit -= unpacked.size
            yield from unpacked.incoming(entry.filename)


def _check_directory(path: Path) -> None:
    """The size of the central directory, before the library reads it whole (APPNOTE 4.3.16, 4.3.14)."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - (66 << 10)))
        tail = file.read()
    told = 0
    if (at := tail.rfind(b"PK\x05\x06")) >= 0 and at + 16 <= len(tail):
        told = int.from_bytes(tail[at + 12 : at + 16], "little")
    if (at := tail.rfind(b"PK\x06\x06")) >= 0 and at + 48 <= len(tail):
        told = max(told if told != 0xFFFFFFFF else 0, int.from_bytes(tail[at + 40 : at + 48], "little"))
    if told > MAX_DIRECTORY_BYTES:
        raise ArchiveLimit(f"The archive's directory is larger than {MAX_DIRECTORY_BYTES} bytes.")


_SPARSE = UnsupportedFile("Sparse files in tar are not taken in.")


class _BoundedTarInfo(tarfile.TarInfo):
    """Refuses what the library would read into memory whatever its size: long names, extended headers, sparse maps."""

    def _proc_member(self, archive: Any) -> Any:
        if self.type in _EXTENSIONS and self.size > MAX_EXTENDED_HEADER_BYTES:
            raise ArchiveLimit(f"A header of the archive is larger than {MAX_EXTENDED_HEADER_BYTES} bytes.")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _SPARSE
        return super()._proc_member(archive)  # type: ignore[misc]

    def _no_sparse(self, *_: Any) -> Any:
        raise _SPARSE

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_sparse


_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


def _tar_members(path: Path, limit: int) -> Iterator[Incoming]:
    with path.open("rb") as file:
        magic = file.read(4)
    # As a stream: nothing is ever sought or extracted to disk. Links, devices and sparse files have no bytes for us.
    mode: Any = "r|gz" if magic[:2] == b"\x1f\x8b" else "r|"
    with ExitStack() as stack:
        unpacked_by_us = stack.enter_context(_zstd_reader(path)) if magic == ZSTD_MAGIC else None
        archive = stack.enter_context(tarfile.open(path, mode, fileobj=unpacked_by_us, tarinfo=_BoundedTarInfo))
        for number, entry in enumerate(archive):
            if number >= MAX_ENTRIES:
                raise ArchiveLimit(f"The archive has more than {MAX_ENTRIES} files.")
            archive.members.clear()  # type: ignore[attr-defined]  # the library remembers every entry
            if entry.size > limit:
                raise ArchiveLimit("The archive unpacks to more than is allowed.")  # before the library skips over it
            member = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
            if member is not None:
                unpacked = _Unpacked(path, member, limit)
                yield from unpacked.incoming(entry.name)
            limit -= entry.size


class _Unpacked:
    """One member, counted while it comes out: in memory when small, else in a file beside the upload."""

    def __init__(self, upload: Path, member: IO[bytes], limit: int) -> None:
        self._path = upload.with_suffix(".member")
        self._data = member.read(IN_MEMORY_BYTES + 1)
        self.size = len(self._data)
        self._on_disk = self.size > IN_MEMORY_BYTES
        if self.size > limit:
            raise ArchiveLimit("The archive unpacks to more than is allowed.")
        if self._on_disk:
            self._spill(member, min(limit, MAX_MEMBER_BYTES))

    def _spill(self, member: IO[bytes], limit: int) -> None:
        try:
            with self._path.open("wb") as file:
                file.write(self._data)
                self._data = b""
                while piece := member.read(1 << 20):
                    self.size += len(piece)
                    if self.size > limit:
                        raise ArchiveLimit("The archive unpacks to more than is allowed.")  # noqa: TRY301 - the file goes first
                    file.write(piece)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise

    def incoming(self, name: str) -> Iterator[Incoming]:
        name = label(name)
        if not self._on_disk:
            yield Incoming(name, data=self._data)
            return
        try:
            yield Incoming(name, path=self._path)
        finally:
            self._path.unlink(missing_ok=True)


def label(name: str) -> str:
    """A member's name as a label: text that a database and a log can hold, of bounded length."""
    kept = "".join(c for c in name[: 4 * MAX_NAME_CHARACTERS] if c.isprintable())
    return kept.encode("utf-8", "replace").decode()[:MAX_NAME_CHARACTERS]


async def next_member(iterator: Iterator[Incoming]) -> Incoming | None:
    """One step of the walk, off the event loop."""
    return await asyncio.to_thread(next, iterator, None)
