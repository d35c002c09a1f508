"""Brings files, folders and archives into a project, with a word on each file.

Everything travels as resumable uploads, so all of it meets the checks of the one ingest job. Many small DICOM files
share an upload as a tar stream: one round trip, one job and one sync for hundreds of slices.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from annotomy.transfer.connection import TransferError, body_of
from annotomy.transfer.upload import send, wait_until_taken_in
from annotomy.uploads.errors import UnsupportedFile
from annotomy.uploads.ingest import kind_of

PACK_BYTES = 64 << 20
PACK_FILES = 512
"""DICOM files that share one upload: large enough to amortise its job, small enough to show progress and to try again."""

WITHOUT_PREAMBLE = (b"\x02\x00", b"\x08\x00")
"""First two bytes of a DICOM stream without preamble: group 0002 or 0008, little endian."""

NOT_OURS = frozenset({"DICOMDIR"})
"""Directories of media (PS3.10 8.6): they describe the files beside them and hold no image."""

State = Literal["stored", "already", "refused", "skipped"]


@dataclass(frozen=True, slots=True)
class FileResult:
    """`skipped`: found in a folder and no medical image, so nobody asked for it. `already`: the same bytes are there."""

    path: str
    state: State
    reason: str = ""


@dataclass(slots=True)
class ImportReport:
    files: list[FileResult] = field(default_factory=list[FileResult])
    study_instance_uids: set[str] = field(default_factory=set[str])

    def count(self, state: State) -> int:
        return sum(one.state == state for one in self.files)


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What one upload carries: one file as it is, or several DICOM files packed into a tar."""

    names: list[str]
    paths: list[Path]
    is_pack: bool


def import_paths(
    client: httpx.Client,
    paths: list[Path],
    *,
    project_id: str,
    told: Callable[[FileResult], None],
    progress: Callable[[str], None],
) -> ImportReport:
    """`told` hears of each file as soon as its fate is known, `progress` what is going on. Raises TransferError."""
    report = ImportReport()

    def note(result: FileResult) -> None:
        report.files.append(result)
        told(result)

    def settle(parcel: _Parcel, address: str) -> None:
        def waiting(seconds: float) -> None:
            if seconds > 15:
                progress(f"waiting for a worker to take it in ({seconds:.0f} s); is one running?")

        upload = wait_until_taken_in(client, address, waiting=waiting)
        report.study_instance_uids.update(upload["study_instance_uids"])
        for result in _results(parcel, upload):
            note(result)
        progress(f"{len(report.files)} files done")

    before: tuple[_Parcel, str] | None = None
    for parcel in _parcels(paths, note):
        progress(f"sending {parcel.names[0]}" + (f" and {len(parcel.names) - 1} more" if parcel.names[1:] else ""))
        try:
            address = _send(client, parcel, project_id)
        except TransferError as error:
            if len(parcel.paths) > 1 or before is None:
                raise
            note(FileResult(parcel.names[0], "refused", str(error)))
            continue
        # One upload is taken in while the next is sent.
        if before is not None:
            settle(*before)
        before = (parcel, address)
    if before is not None:
        settle(*before)
    return report


def project_named(client: httpx.Client, name: str, *, told: Callable[[str], None]) -> str:
    """The id of one's project of this name, made when there is none."""
    projects = body_of(client.get("/api/v1/projects"))["items"]
    for project in projects:
        if name in (project["name"], project["id"]):
            return project["id"]
    made = body_of(client.post("/api/v1/projects", json={"name": name}))
    told(f"Project {name} is new.")
    return made["id"]


def _send(client: httpx.Client, parcel: _Parcel, project_id: str) -> str:
    if not parcel.is_pack:
        return send(client, parcel.paths[0], filename=parcel.paths[0].name, project_id=project_id)
    with tempfile.TemporaryDirectory(prefix="annotomy-import-") as folder:
        pack = Path(folder) / "import.tar"
        with tarfile.open(pack, "w") as tar:
            for name, path in zip(parcel.names, parcel.paths, strict=True):
                # Without owner and modification time: they are nobody's business, and nothing of them is kept.
                entry = tarfile.TarInfo(name.lstrip("/"))
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(entry, file)
        return send(client, pack, filename=pack.name, project_id=project_id)


def _parcels(paths: list[Path], note: Callable[[FileResult], None]) -> Iterator[_Parcel]:
    held: list[tuple[str, Path]] = []
    held_bytes = 0
    for path, was_named in _files(paths):
        try:
            kind, size = _kind(path), path.stat().st_size
        except OSError as error:
            note(FileResult(str(path), "refused", f"cannot be read: {error.strerror}"))
            continue
        if kind is None or kind == "picture":
            why = "neither DICOM, nor ZIP or tar, nor NIfTI, NRRD or MetaImage"
            if kind == "picture":
                why = "a picture has no place of its own: pack the stack with a geometry.json into a ZIP"
            note(FileResult(str(path), "refused" if was_named else "skipped", why))
        elif kind != "dicom" or size > PACK_BYTES:
            yield _Parcel([str(path)], [path], is_pack=False)
        else:
            if held and (held_bytes + size > PACK_BYTES or len(held) >= PACK_FILES):
                yield _pack(held)
                held, held_bytes = [], 0
            held.append((str(path), path))
            held_bytes += size
    if held:
        yield _pack(held)


def _pack(held: list[tuple[str, Path]]) -> _Parcel:
    return _Parcel([name for name, _ in held], [path for _, path in held], is_pack=True)


def _files(paths: list[Path]) -> Iterator[tuple[Path, bool]]:
    """Each file once, with whether it was named itself; of folders in order, without hidden files and links to folders."""
    seen: set[Path] = set()
    for given in paths:
        found = sorted(_below(given)) if given.is_dir() else [given]
        for path in found:
            key = path.resolve()
            if key not in seen:
                seen.add(key)
                yield path, path == given


def _below(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink():
                yield from _below(entry)
        elif entry.is_file() and entry.name not in NOT_OURS:
            yield entry


def _kind(path: Path) -> str | None:
    try:
        return kind_of(path)
    except UnsupportedFile:
        with path.open("rb") as file:
            return "dicom" if file.read(2) in WITHOUT_PREAMBLE else None


def _results(parcel: _Parcel, upload: Any) -> Iterator[FileResult]:
    files = upload["files"]
    if not files:
        why = _reason(upload["problem"]) or "nothing in it was taken in"
        yield from (FileResult(name, "refused", why) for name in parcel.names)
    elif parcel.is_pack and len(files) == len(parcel.names):
        # In the order of the tar; the server cuts long names.
        for name, file in zip(parcel.names, files, strict=True):
            yield FileResult(name, file["state"], _reason(file["problem"]))
    elif len(files) == 1 or all(file["state"] == files[0]["state"] for file in files):
        many = f"{len(files)} instances" if len(files) > 1 else ""
        yield FileResult(parcel.names[0], files[0]["state"], _reason(files[0]["problem"]) or many)
    else:
        for file in files:
            yield FileResult(f"{parcel.names[0]}: {file['path']}", file["state"], _reason(file["problem"]))


def _reason(problem: Any) -> str:
    return "" if problem is None else problem.get("detail") or problem["title"]
