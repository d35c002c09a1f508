"""The table of limits in the documents says what the code does."""

import re
from pathlib import Path

from annotomy import app
from annotomy.archive import decode
from annotomy.dicom import attributes, decoding, frames, header_json, opened_picture, pixels, scanner, volume_series
from annotomy.dicomweb import cursor, qido, stow
from annotomy.uploads import ingest, media, pictures, unfold

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "untrusted-input.md"
MODULES = (
    app, attributes, decode, decoding, frames, ingest, media, opened_picture, pictures, pixels, scanner, stow, unfold,
    volume_series, header_json, qido, cursor,
)  # fmt: skip
ROW = re.compile(r"\| `(\w+)\.(\w+)` = (\d+) \|")


def test_the_documented_limits_are_those_of_the_code() -> None:
    documented = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(documented) >= 20
    by_name = {module.__name__.rpartition(".")[2]: module for module in MODULES}
    wrong = [
        f"{module}.{name}: {value} in the table, {getattr(by_name[module], name)} in the code"
        for module, name, value in documented
        if getattr(by_name[module], name) != float(value)
    ]
    assert not wrong, "\n".join(wrong)
