"""Brings files, folders and archives into a project, with a word on each file.

Everything travels as resumable uploads, so all of it meets the checks of the one ingest job. Many small DICOM files
share an upload as a tar, after a manifest has told which of them the server lacks: a few round trips, one job and one sync
for hundreds of slices.
"""

import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from blake3 import blake3

from annotomy.transfer.connection import TransferError, body_of
from annotomy.transfer.upload import Sender, wait_until_taken_in
from annotomy.uploads.errors import UnsupportedFile
from annotomy.uploads.ingest import MAX_NAME_CHARACTERS, kind_of, label

PACK_BYTES = 64 << 20
PACK_FILES = 512
"""DICOM files that share one upload: large enough to amortise its job, small enough to show progress and to try again."""

PARCELS_AT_ONCE = 4
"""On their way or being taken in: while the server stores one, the next is sent."""
WATCH_PAUSE_S = 2.0
"""Between two looks at a watched folder; a file that is still being written changes meanwhile."""

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
    """`told` hears of each file as soon as its fate is known, `progress` what is going on. Raises TransferError.

    Several parcels travel at once. Broken off and begun again, it sends what is not there yet.
    """
    report = ImportReport()
    lock = threading.Lock()
    began, sent_bytes = time.monotonic(), 0

    def note(result: FileResult) -> None:
        with lock:
            report.files.append(result)
            told(result)

    def sent(count: int) -> None:
        nonlocal sent_bytes
        with lock:
            sent_bytes += count
            rate = sent_bytes / 1e6 / max(0.001, time.monotonic() - began)
            progress(f"{len(report.files)} files done, {sent_bytes / 1e6:.0f} MB sent, {rate:.0f} MB/s")

    def waiting(seconds: float) -> None:
        if seconds > 15:
            with lock:
                progress(f"waiting for a worker to take it in ({seconds:.0f} s); is one running?")

    sender = Sender(client, project_id, sent)

    def carry(parcel: _Parcel) -> None:
        try:
            results, studies = _carry(sender, parcel, waiting)
        except TransferError as error:
            if len(parcel.paths) > 1 or not report.files:
                raise
            results, studies = [FileResult(parcel.names[0], "refused", str(error))], []
        for result in results:
            note(result)
        with lock:
            report.study_instance_uids.update(studies)

    try:
        with ThreadPoolExecutor(PARCELS_AT_ONCE) as pool:
            under_way: set[Future[None]] = set()
            for parcel in _parcels(paths, note):
                under_way.add(pool.submit(carry, parcel))
                if len(under_way) > PARCELS_AT_ONCE:  # no further ahead of the sending than that
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for one in done:
                        one.result()
            for one in under_way:
                one.result()
    finally:
        sender.close()
    return report


def watch_paths(
    client: httpx.Client,
    paths: list[Path],
    *,
    project_id: str,
    told: Callable[[FileResult], None],
    progress: Callable[[str], None],
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Brings in what appears below the folders, for ever: each file once it has not changed from one look to the next."""
    before: dict[Path, tuple[int, int]] = {}
    done: dict[Path, tuple[int, int]] = {}
    while True:
        now = {path: _stamp(path) for path, _ in _files(paths)}
        ready = [path for path, stamp in now.items() if before.get(path) == stamp != done.get(path)]
        if ready:
            try:
                import_paths(client, ready, project_id=project_id, told=told, progress=progress)
                done |= {path: now[path] for path in ready}
            except TransferError as error:  # the server is away for a while: the next look tries again
                progress(str(error))
        before = now
        pause(WATCH_PAUSE_S)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # gone again, or not ours to read: the next look will tell
        return (-1, -1)
    return found.st_size, found.st_mtime_ns


def project_named(client: httpx.Client, name: str, *, told: Callable[[str], None]) -> str:
    """The id of one's project of this name, made when there is none."""
    projects = body_of(client.get("/api/v1/projects"))["items"]
    for project in projects:
        if name in (project["name"], project["id"]):
            return project["id"]
    made = body_of(client.post("/api/v1/projects", json={"name": name}))
    told(f"Project {name} is new.")
    return made["id"]


def _carry(sender: Sender, parcel: _Parcel, waiting: Callable[[float], None]) -> tuple[list[FileResult], Iterable[str]]:
    """What became of each file of the parcel, and the studies that it brought."""
    if not parcel.is_pack:
        address = sender.send(parcel.paths[0], filename=parcel.paths[0].name)
        upload = wait_until_taken_in(sender.client, address, waiting=waiting)
        return list(_results(parcel.names, upload, is_pack=False)), upload["study_instance_uids"]
    manifest = _announced(sender, parcel)
    missing = set(manifest["missing"])
    results = [FileResult(name, "already") for name in parcel.names if _label(name) not in missing]
    studies: set[str] = set(manifest["study_instance_uids"])
    names = [(name, path) for name, path in zip(parcel.names, parcel.paths, strict=True) if _label(name) in missing]
    if names:
        with tempfile.TemporaryDirectory(prefix="annotomy-import-") as folder:
            pack = Path(folder) / "import.tar"
            _pack_files(pack, names)
            address = sender.send(pack, filename=pack.name, manifest_id=manifest["id"])
        upload = wait_until_taken_in(sender.client, address, waiting=waiting)
        results += _results([name for name, _ in names], upload, is_pack=True)
        studies.update(upload["study_instance_uids"])
    return results, studies


def _announced(sender: Sender, parcel: _Parcel) -> Any:
    """The manifest of a pack: what is there already is not sent."""
    files = [
        {"path": _label(name), "size": path.stat().st_size, "blake3": blake3(path.read_bytes()).hexdigest()}
        for name, path in zip(parcel.names, parcel.paths, strict=True)
    ]
    body = {"project_id": sender.project_id, "files": files}
    return body_of(sender.client.post("/api/v1/study-manifests", json=body))


def _pack_files(pack: Path, names: list[tuple[str, Path]]) -> None:
    """The same files give the same bytes, so that a pack that was sent by half is gone on with."""
    with tarfile.open(pack, "w") as tar:
        for name, path in names:
            # Without owner and modification time: they are nobody's business, and nothing of them is kept.
            entry = tarfile.TarInfo(_label(name))
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)


def _label(name: str) -> str:
    """A path as manifests and archives name it: relative, printable, of bounded length."""
    return label(name.lstrip("/")[-MAX_NAME_CHARACTERS:])


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


def _results(names: list[str], upload: Any, *, is_pack: bool) -> Iterator[FileResult]:
    files = upload["files"]
    if not files:
        why = _reason(upload["problem"]) or "nothing in it was taken in"
        yield from (FileResult(name, "refused", why) for name in names)
    elif is_pack:
        by_label = {_label(name): name for name in names}
        for file in files:
            yield FileResult(by_label.get(file["path"]) or str(file["path"]), file["state"], _reason(file["problem"]))
    elif len(files) == 1 or all(file["state"] == files[0]["state"] for file in files):
        many = f"{len(files)} instances" if len(files) > 1 else ""
        yield FileResult(names[0], files[0]["state"], _reason(files[0]["problem"]) or many)
    else:
        for file in files:
            yield FileResult(f"{names[0]}: {file['path']}", file["state"], _reason(file["problem"]))


def _reason(problem: Any) -> str:
    return "" if problem is None else problem.get("detail") or problem["title"]
