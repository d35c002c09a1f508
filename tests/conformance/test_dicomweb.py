"""docs/conformance.md, DICOMweb: the resources and the table of workitem states are those of the code."""

import re
from pathlib import Path

from annotomy.archive.order import INSTANCE_ORDERS, SERIES_ORDERS, STUDY_ORDERS
from annotomy.archive.query import MAX_RESULTS, MAX_TOTAL
from annotomy.dicom.pixels import HTJ2K
from annotomy.dicom.rendering import MAX_VIEWPORT, MEDIA_TYPES
from annotomy.dicomweb.qido import DEFAULT_LIMIT, MAX_FIELD_DEPTH
from annotomy.dicomweb.wado import EXPLICIT_LITTLE, HTJ2K_SYNTAXES
from annotomy.workitems.states import TRANSITIONS, State
from tests.support.application import Application

STATEMENT = (Path(__file__).resolve().parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
SECTION = STATEMENT.split("## DICOMweb\n")[1].split("\n## ")[0]
SHORT = {
    "study_instance_uid": "study", "series_instance_uid": "series", "sop_instance_uid": "instance", "frame_list": "frames",
    "workitem_uid": "workitem", "ae_title": "aetitle", "bulkdata_path": "attribute",
}  # fmt: skip


def written() -> set[tuple[str, str]]:
    """(method, path); `the same with X` are the paths of the row of instances with X behind."""
    rows = re.findall(r"^\| ([A-Z, ]+) \| (.+?) \| .+ \|$", SECTION, flags=re.MULTILINE)
    found: set[tuple[str, str]] = set()
    instances: list[str] = []
    for methods, cell in rows:
        paths = re.findall(r"`(/[^`]+)`", cell)
        if cell.startswith("the same with"):
            paths = [path + paths[0] for path in instances] + paths[1:]
        elif "WADO-RS instances" in next(line for line in SECTION.splitlines() if cell in line):
            instances = paths
        found |= {(method, path) for method in methods.split(", ") for path in paths}
    return found


def test_every_resource_is_in_the_statement_and_every_one_in_it_is_served(application: Application) -> None:
    served: set[tuple[str, str]] = set()
    for route in application.app.routes:
        path = str(route.path_format)
        if path.startswith("/dicom-web/"):
            short = re.sub(r"\{(\w+)\}", lambda found: f"{{{SHORT[found[1]]}}}", path.removeprefix("/dicom-web"))
            served |= {(method, short) for method in getattr(route, "methods", ()) if method not in ("HEAD", "OPTIONS")}
    assert written() == served


def test_the_table_of_workitem_states_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| ([a-z-]+) \| (correct|wrong) \| (.+) \|$", SECTION, flags=re.MULTILINE)
    read = {(request, correct == "correct"): cells.split(" | ") for request, correct, cells in rows}
    code = {
        key: [f"{row[state]:04X}" if isinstance(row[state], int) else str(row[state]) for state in State]
        for key, row in TRANSITIONS.items()
    }
    assert read == code


def test_forms_and_limits_of_pictures_are_those_of_the_code() -> None:
    forms = next(line for line in SECTION.splitlines() if line.startswith("| forms |"))
    assert set(re.findall(r"image/\w+", forms)) == set(MEDIA_TYPES)
    assert f"at most {MAX_VIEWPORT}" in SECTION


def test_what_frames_are_transcoded_to_is_what_the_statement_says() -> None:
    table = SECTION.split("| frames | asked by |")[1].split("\n\n")[0]
    assert set(re.findall(r"1\.2\.840[.0-9]+", table.split("asked")[0])) == {*HTJ2K_SYNTAXES, EXPLICIT_LITTLE}
    assert re.findall(r"1\.2\.840[.0-9]*[0-9]", SECTION.split("Other transfer syntaxes")[1])[0] in HTJ2K - {
        *HTJ2K_SYNTAXES
    }


def test_what_is_sorted_by_is_what_the_statement_says() -> None:
    table = SECTION.split("| sorted by |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    names = [{dictionary_keyword(name) for name in re.sub(r" \(.*?\)", "", row[0]).split(", ")} for row in rows]
    assert names == [set(STUDY_ORDERS), set(SERIES_ORDERS), set(INSTANCE_ORDERS)]
    assert f"up to {MAX_TOTAL}, and `{MAX_TOTAL}+`" in SECTION
    assert f"at most {MAX_FIELD_DEPTH} names deep" in SECTION
    assert f"{DEFAULT_LIMIT} and 0 unless given; at most {MAX_RESULTS}" in SECTION


def dictionary_keyword(name: str) -> str:
    return name.replace("'s", "").replace(" ", "")
