"""From the files of an upload to the DICOM files that the store takes: volumes, stacks of pictures, media.

What needs another file of the same archive (a header its data, a picture its neighbours) waits in a file beside the
upload until the archive has been walked. A file that cannot be converted is told, and the rest goes on.
"""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from annotomy.archive.errors import NotDicom
from annotomy.archive.store import Incoming, StoreOutcome
from annotomy.dicom import metaimage, nrrd
from annotomy.dicom.nifti import nifti_to_dicom
from annotomy.dicom.volume_series import Told, VolumeError
from annotomy.errors import BadRequest, Problem
from annotomy.uploads.errors import GeometryMissing, MediaFileMissing, UnsupportedFile, VolumeUnreadable
from annotomy.uploads.media import comparable, is_media_directory, missing_files
from annotomy.uploads.pictures import FORM_NAME, GeometryForm, form_of, in_order, stack_pixels, stack_to_dicom

MAX_WAITING_BYTES: Final = 8 << 30
"""Files of one upload that wait for others at the same time: the largest volume with its parts."""
_HEAD_BYTES: Final = 64 << 10
_DATA = re.compile(r"\.(raw|zraw|raw\.gz|bin|dat|img)$", re.IGNORECASE)
"""How the data of detached headers is called."""
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")
"""How ZIP, 7z and RAR begin; tar says what it is further on."""
_SLICE = re.compile(r" slice \d+$")

Kind = Literal["dicom", "nifti", "nrrd", "metaimage", "picture", "data", "form", "media"]


def kind_of_content(head: bytes, name: str) -> Kind:
    """By content; the name decides only for what has no form of its own. What is none of ours counts as DICOM: the store
    says what is wrong with it."""
    if is_media_directory(head):
        return "media"
    if head[128:132] == b"DICM":
        return "dicom"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if metaimage.BEGINS.match(head):
        return "metaimage"
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")):
        return "picture"
    if name.rpartition("/")[2].lower() == FORM_NAME:
        return "form"
    return "data" if _DATA.search(name) else "dicom"


def source_of(name: str) -> str:
    """The file that a slice of this name was made of."""
    return _SLICE.sub("", name)


@dataclass(frozen=True, slots=True)
class _Waiting:
    kind: Kind
    path: Path


class Unfolding:
    """Of one upload. `path` is its part file, beside which files wait; `salt` and `form` go into what is made."""

    def __init__(self, path: Path, *, salt: str, filename: str, form: GeometryForm | None) -> None:
        self._path, self._salt, self._filename, self._form = path, salt, filename, form
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_bytes = self._number = 0
        self._names: set[str] = set()
        self.told: list[StoreOutcome] = []
        """Files that do not reach the store themselves: refused, or used for others."""

    async def unfold(self, source: AsyncIterator[Incoming]) -> AsyncIterator[Incoming]:
        try:
            async for member in source:
                self._names.add(member.name)
                head = await asyncio.to_thread(_head, member)
                kind = kind_of_content(head, member.name)
                if _is_archive(head):
                    self._refuse(member.name, UnsupportedFile("An archive inside an archive is not opened: unpack it."))
                elif kind == "dicom":
                    yield member
                elif not self._may_wait(member):
                    self._refuse(
                        member.name, VolumeUnreadable("The files of the upload that wait for others are too large.")
                    )
                elif kind in ("nifti", "nrrd", "metaimage") and not _is_detached(kind, head):
                    path = await asyncio.to_thread(self._set_aside, member)
                    async for made in self._volume(member.name, _Waiting(kind, path)):
                        yield made
                    self._let_go(path)
                else:
                    self._waiting[member.name] = _Waiting(kind, await asyncio.to_thread(self._set_aside, member))
            async for made in self._rest():
                yield made
        finally:
            for waiting in self._waiting.values():
                waiting.path.unlink(missing_ok=True)

    async def _rest(self) -> AsyncIterator[Incoming]:
        """What has waited, now that every file is there."""
        for name, waiting in self._of("nrrd", "metaimage"):
            async for made in self._volume(name, waiting):
                yield made
        for folder in dict.fromkeys(name.rpartition("/")[0] for name, _ in self._of("picture")):
            async for made in self._stack(folder):
                yield made
        for name, waiting in self._of("media"):
            await self._media(name, waiting.path)
        done = {outcome.name for outcome in self.told}
        for name, waiting in self._of("data", "form"):
            if name not in done:  # no file asked for it: the store says that it is none of ours
                yield Incoming(name, path=waiting.path)

    def _of(self, *kinds: Kind) -> list[tuple[str, _Waiting]]:
        return [(name, waiting) for name, waiting in self._waiting.items() if waiting.kind in kinds]

    async def _volume(self, name: str, waiting: _Waiting) -> AsyncIterator[Incoming]:
        data_names: list[str] = []

        def beside(wanted: str) -> Path | None:
            folder = name.rpartition("/")[0]
            sought = comparable(f"{folder}/{wanted}")
            for other, found in self._of("data"):
                if comparable(other) == sought:
                    data_names.append(other)
                    return found.path
            return None

        told = Told(self._salt, name, (self._form.modality if self._form else None) or "")
        if waiting.kind == "nifti":
            slices = nifti_to_dicom(waiting.path, salt=told.salt, filename=name, modality=told.modality)
        elif waiting.kind == "nrrd":
            slices = nrrd.nrrd_to_dicom(waiting.path, told, beside)
        else:
            slices = metaimage.metaimage_to_dicom(waiting.path, told, beside)
        number, problem = 0, None
        try:
            while (data := await asyncio.to_thread(next, slices, None)) is not None:
                number += 1
                yield Incoming(f"{name} slice {number}", data=data)
        except VolumeError as error:
            problem = VolumeUnreadable(str(error))
            self._refuse(name, problem)
        for used in dict.fromkeys(data_names):
            self.told.append(StoreOutcome(used, "refused" if problem else "used", problem=problem))

    async def _stack(self, folder: str) -> AsyncIterator[Incoming]:
        pictures = {name: one.path for name, one in self._of("picture") if name.rpartition("/")[0] == folder}
        spool = self._path.with_suffix(".stack")
        try:
            form = await self._form_of(folder)
            names = in_order(list(pictures), form)
            shape = await stack_pixels([pictures[name] for name in names], spool)
            label = folder or (names[0] if len(names) == 1 else self._filename)
            slices: Iterator[bytes] = stack_to_dicom(spool, shape, form, Told(self._salt, label, form.modality or ""))
            number = 0
            while (data := await asyncio.to_thread(next, slices, None)) is not None:
                # A picture is a slice; the pages of a TIFF are slices of it.
                yield Incoming(names[number] if len(names) == shape[2] else f"{names[0]} slice {number + 1}", data=data)
                number += 1
        except VolumeError as error:
            for name in pictures:
                self._refuse(name, VolumeUnreadable(str(error)))
        except (GeometryMissing, BadRequest) as problem:
            for name in pictures:
                self._refuse(name, problem)
        finally:
            spool.unlink(missing_ok=True)

    async def _form_of(self, folder: str) -> GeometryForm:
        """That of the folder, else the archive's, else the upload's."""
        for name in (f"{folder}/{FORM_NAME}" if folder else FORM_NAME, FORM_NAME):
            found = next((one for one in self._of("form") if one[0].lower() == name.lower()), None)
            if found is not None:
                form = form_of(await asyncio.to_thread(_read_some, found[1].path))
                if not any(outcome.name == found[0] for outcome in self.told):
                    self.told.append(StoreOutcome(found[0], "used"))
                return form
        if self._form is None:
            raise GeometryMissing("A stack of pictures needs a geometry form.")
        return self._form

    async def _media(self, name: str, path: Path) -> None:
        try:
            missing = await asyncio.to_thread(lambda: missing_files(name, path.read_bytes(), self._names))
        except NotDicom as problem:
            self._refuse(name, problem)
            return
        self.told.append(StoreOutcome(name, "used"))
        for one in missing:
            self._refuse(one, MediaFileMissing("The media directory names this file, and the upload does not hold it."))

    def _refuse(self, name: str, problem: Problem) -> None:
        self.told.append(StoreOutcome(name, "refused", problem=problem))

    def _may_wait(self, member: Incoming) -> bool:
        size = len(member.data) if member.data is not None else _path(member).stat().st_size
        return self._waiting_bytes + size <= MAX_WAITING_BYTES

    def _set_aside(self, member: Incoming) -> Path:
        self._number += 1
        path = self._path.with_suffix(f".waiting-{self._number}")
        if member.data is not None:
            path.write_bytes(member.data)
        else:
            path.unlink(missing_ok=True)
            _path(member).rename(path)
        self._waiting_bytes += path.stat().st_size
        return path

    def _let_go(self, path: Path) -> None:
        self._waiting_bytes -= path.stat().st_size
        path.unlink()


def _is_detached(kind: Kind, head: bytes) -> bool:
    try:
        if kind == "nrrd":
            return nrrd.data_file_of(head) is not None
        return kind == "metaimage" and metaimage.data_file_of(head) is not None
    except VolumeError:
        return False  # conversion says what is wrong


def _head(member: Incoming) -> bytes:
    if member.data is not None:
        head = member.data[:_HEAD_BYTES]
    else:
        with _path(member).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    if head[:2] != b"\x1f\x8b" or _DATA.search(member.name):
        return head
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, 560)
    except zlib.error:
        return head


def _read_some(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _path(member: Incoming) -> Path:
    assert member.path is not None, "an incoming file has data or a path"
    return member.path


def _is_archive(head: bytes) -> bool:
    """A DICOM file may begin with anything (PS3.10 7.1): its preamble says nothing."""
    return head[128:132] != b"DICM" and (head.startswith(_ARCHIVES) or head[257:262] == b"ustar")
