"""The ASVS table is complete, and what it names exists."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "reference" / "asvs.md"
ROW = re.compile(r"^\| V(\d+)\.(\d+)\.(\d+) \| ([12]) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
STATES = ("Met", "Partly", "Not proven", "Not met", "Operator", "Not applicable")
OF_LEVEL = {"1": 70, "2": 183}
"""ASVS 5.0.0; level 3 has 92 more."""


def rows() -> list[tuple[tuple[int, ...], str, str, str]]:
    """Number, level, state with its words, proof."""
    found = ROW.findall(TABLE.read_text(encoding="utf-8"))
    return [(tuple(map(int, one[:3])), one[3], one[5], one[6].strip()) for one in found]


def state_of(words: str) -> str:
    return next(state for state in STATES if words.startswith(state))


def test_every_requirement_of_both_levels_stands_once_and_in_order() -> None:
    numbers = [number for number, *_ in rows()]
    assert numbers == sorted(set(numbers))
    assert {number[0] for number in numbers} == set(range(1, 18))
    assert Counter(level for _, level, *_ in rows()) == OF_LEVEL


def test_what_is_not_met_says_why() -> None:
    for number, _, words, _ in rows():
        state = state_of(words)
        assert state == "Met" or ":" in words, (number, words)


def test_every_named_test_and_document_exists() -> None:
    missing: list[str] = []
    for number, _, words, proof in rows():
        if proof.startswith("`"):
            path, _, name = proof.strip("`").partition("::")
            source = ROOT / path
            if not source.is_file() or not re.search(
                rf"^(async )?def {name}\(", source.read_text("utf-8"), re.MULTILINE
            ):
                missing.append(f"{number}: {proof}")
        elif proof.startswith("["):
            target = re.search(r"\(([^)#]+)", proof)
            if target is None or not (TABLE.parent / target[1]).is_file():
                missing.append(f"{number}: {proof}")
        elif proof != "-":
            missing.append(f"{number}: {proof} is neither a test nor a document")
        if state_of(words) == "Not applicable" and proof != "-":
            missing.append(f"{number}: what does not apply has no proof")
    assert not missing, "\n".join(missing)


def test_the_counts_above_the_table_are_those_of_the_table() -> None:
    counts = Counter(state_of(words) for _, _, words, _ in rows())
    told = ", ".join(f"{counts[state]} {state[0].lower()}{state[1:]}" for state in STATES)
    assert f"Now: {told}." in TABLE.read_text(encoding="utf-8").replace("\n", " "), told
