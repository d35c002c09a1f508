"""The development data folder beside a checkout; tests that use it skip where it is absent."""

import os
from pathlib import Path

import pytest


def shared_data_folder() -> Path:
    """The folder, from ANNOTOMY_SHARED_DATA or `../shared/data` beside the checkout; skips the test without it."""
    named = os.environ.get("ANNOTOMY_SHARED_DATA")
    candidates = [Path(named)] if named else [p / "shared" / "data" for p in Path(__file__).resolve().parents]
    for folder in candidates:
        if (folder / "MANIFEST.md").is_file():
            return folder
    pytest.skip("development data is not beside this checkout (set ANNOTOMY_SHARED_DATA)")
