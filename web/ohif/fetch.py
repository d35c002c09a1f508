"""Puts the prebuilt OHIF viewer under /ohif/: one pinned npm package, pruned, patched for the sub-path, told to read this server.

OHIF comes as a foreign client of our DICOMweb; we change where it lives and what it reads, nothing else.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@ohif/app@3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""As the npm registry states it for this version (Subresource Integrity form)."""

DROPPED_FOLDERS = ("ort", "dicom-microscopy-viewer")
"""An old ONNX runtime of 100 MB and the slide viewer: no mode that we offer loads them."""

DROPPED_SUFFIXES = (".map", ".gz", ".br")
SERVICE_WORKERS = ("init-service-worker.js", "sw.js")
"""Replaced by empty files: they unregister every worker of the origin and load a library from a CDN."""

HERE = Path(__file__).parent


def fetch(target: Path, npm: list[str], environment: dict[str, str]) -> None:
    """Downloads, verifies, prunes and patches into `target`, which is replaced as a whole at the end."""
    with tempfile.TemporaryDirectory(prefix="annotomy-ohif-") as scratch_name:
        scratch = Path(scratch_name)
        subprocess.run(
            [*npm, "pack", PACKAGE, "--silent"], cwd=scratch, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        archive = next(scratch.glob("*.tgz"))
        _verify(archive)
        _extract(archive, scratch)
        dist = scratch / "package" / "dist"
        _patch(dist)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(dist, target)


def _verify(archive: Path) -> None:
    algorithm, _, expected = INTEGRITY.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != expected:
        raise SystemExit(f"{PACKAGE} does not have the pinned {algorithm}; nothing was installed")


def _extract(archive: Path, into: Path) -> None:
    """Writes files only and by name: Python 3.11.2 (Debian 12) does not have tarfile's extraction filters yet."""
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and _wanted(member.name) else None
            if content is not None:
                target = into / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)


def _wanted(name: str) -> bool:
    parts = Path(name).parts
    return (
        ".." not in parts
        and parts[:2] == ("package", "dist")
        and parts[2] not in DROPPED_FOLDERS
        and not name.endswith(DROPPED_SUFFIXES)
    )


def _patch(dist: Path) -> None:
    """The package is built for the root path; everything that says so is told /ohif/ instead."""
    index = dist / "index.html"
    text = index.read_text(encoding="utf-8")
    for old, new in (
        ('src="/', 'src="/ohif/'),
        ('href="/', 'href="/ohif/'),
        ('PUBLIC_URL="/"', 'PUBLIC_URL="/ohif/"'),
        ("PUBLIC_URL = '/'", "PUBLIC_URL = '/ohif/'"),
    ):
        text = text.replace(old, new)
    index.write_text(text, encoding="utf-8")

    patched = 0
    for script in dist.rglob("*.js"):
        source = script.read_text(encoding="utf-8")
        moved = source.replace('__webpack_require__.p = "/"', '__webpack_require__.p = "/ohif/"').replace(
            '__webpack_require__.p="/"', '__webpack_require__.p="/ohif/"'
        )
        if moved != source:
            script.write_text(moved, encoding="utf-8")
            patched += 1
    if patched == 0:
        raise SystemExit(f"{PACKAGE} sets its public path in an unknown way; the patch for /ohif/ needs a look")

    for sheet in dist.rglob("*.css"):
        source = sheet.read_text(encoding="utf-8")
        sheet.write_text(source.replace("url(/", "url(/ohif/"), encoding="utf-8")
    for name in SERVICE_WORKERS:
        (dist / name).write_text("", encoding="utf-8")
    shutil.copyfile(HERE / "app-config.js", dist / "app-config.js")
