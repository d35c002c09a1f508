"""The documents tell the truth: links lead somewhere, and both READMEs name commands that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
RUN_COMMAND = re.compile(r"\./run ([a-z]+)")


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_resolve(document: Path) -> None:
    broken: list[str] = []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        for target in LINK.findall(line):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            if not (document.parent / target.split("#")[0]).exists():
                broken.append(f"{document.relative_to(ROOT)}:{number} -> {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_run_commands_in_documents_exist(document: Path) -> None:
    script = (ROOT / "run").read_text(encoding="utf-8")
    offered = set(re.findall(r"^  ([a-z]+) ", script, flags=re.MULTILINE))
    named = set(RUN_COMMAND.findall(document.read_text(encoding="utf-8")))
    assert named <= offered, f"{document.relative_to(ROOT)} names commands that ./run does not have: {named - offered}"
