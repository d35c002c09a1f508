"""QIDO-RS in the asker's order: pages that go on behind the last row, totals, and what is told of orders that are not kept."""

import io
from typing import Any
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from annotomy.archive import query as archive_query
from annotomy.archive.order import STUDY_ORDERS, Key, behind
from annotomy.projects import access
from tests.dicomweb.test_dicomweb import stow
from tests.support.application import Application
from tests.support.dicom_files import ct_instance, ct_series, edited

PEOPLE = [("Kim^B", "P3", "20260103"), ("kim^a", "P1", "20260101"), ("Ahn^C", "P2", "20260103"), ("Lee^D", "P2", "20260102"),
          ("가^나", "P9", "20251231"), ("Kim^B", "P4", "20260104"), ("", "P0", "20260103")]  # fmt: skip


@pytest.fixture
async def headers(application: Application) -> dict[str, str]:
    """Seven studies of the owner's; one of somebody else's, which is in no page and no total."""
    headers = await application.headers("owner")
    for name, patient_id, day in PEOPLE:
        files = [
            edited(
                ct_instance(study_instance_uid=uid, series_instance_uid=f"{uid}.{n}", patient_name=name, study_date=day),
                PatientID=patient_id, SeriesNumber=number, Modality="MR" if n == 2 else "CT",
            )
            for uid in [generate_uid()[:60].rstrip(".")] for n, number in ((1, 7), (2, None), (3, 2))
        ]  # fmt: skip
        assert (await stow(application, headers, files)).status_code == 200
    others = await application.headers("stranger")
    assert (await stow(application, others, ct_series(1, patient_name="Hidden^One"))).status_code == 200
    return headers


async def pages(application: Application, headers: dict[str, str], address: str) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    while True:
        answer = await application.client.get(address, headers=headers)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        if "next" not in answer.links:
            return found
        assert "Kim" not in answer.links["next"]["url"]
        address = urljoin(address, answer.links["next"]["url"])


def first(row: dict[str, Any], tag: str) -> Any:
    value = row.get(tag, {}).get("Value", [""])[0]
    return value["Alphabetic"].lower() if isinstance(value, dict) else value


@pytest.mark.parametrize("few", [5000, -1], ids=["sorted", "walked"])
async def test_pages_in_every_order_are_one_list_cut_in_pieces(
    application: Application, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(access, "FEW_VISIBLE", few)
    tags = {"StudyDate": "00080020", "PatientName": "00100010", "PatientID": "00100020", "AccessionNumber": "00080050",
            "StudyInstanceUID": "0020000D"}  # fmt: skip
    assert tags.keys() == STUDY_ORDERS.keys()
    for keyword, tag in tags.items():
        for sign in ("", "-"):
            cut = await pages(application, headers, f"/dicom-web/studies?limit=2&orderby={sign}{keyword}")
            assert [len(page) for page in cut] == [2, 2, 2, 1]
            values = [first(row, tag) for page in cut for row in page]
            assert values == sorted(values, reverse=sign == "-"), f"{sign}{keyword}"
            assert len({first(row, "0020000D") for page in cut for row in page}) == len(PEOPLE)
    cut = await pages(application, headers, "/dicom-web/studies?limit=3&orderby=PatientID,-StudyDate,-StudyTime")
    assert [(first(row, "00100020"), first(row, "00080020")) for page in cut for row in page][2:4] == [
        ("P2", "20260103"), ("P2", "20260102")
    ]  # fmt: skip
    cut = await pages(application, headers, "/dicom-web/series?limit=4&orderby=PatientName,-SeriesNumber")
    rows = [(first(row, "00100010"), first(row, "00200011")) for page in cut for row in page]
    assert [len(page) for page in cut] == [4, 4, 4, 4, 4, 1]
    assert rows[:3] == [("", 7), ("", 2), ("", "")], "without a number last"
    assert [name for name, _ in rows] == sorted(name for name, _ in rows)
    assert sum(len(page) for page in await pages(application, headers, "/dicom-web/instances?limit=5")) == 21


async def test_inside_of_a_study_everything_is_sorted_by(application: Application, headers: dict[str, str]) -> None:
    study = (await application.client.get("/dicom-web/studies?limit=1", headers=headers)).json()[0]
    path = f"/dicom-web/studies/{first(study, '0020000D')}/series"
    for keyword, tag, expected in (
        ("SeriesNumber", "00200011", [2, 7, ""]), ("-SeriesNumber", "00200011", [7, 2, ""]),
        ("-Modality", "00080060", ["MR", "CT", "CT"]), ("0020000E", "0020000E", None),
    ):  # fmt: skip
        cut = await pages(application, headers, f"{path}?limit=1&orderby={keyword}")
        values = [first(page[0], tag) for page in cut]
        assert values == (sorted(values) if expected is None else expected), keyword


async def test_an_order_that_is_not_kept_is_told(application: Application, headers: dict[str, str]) -> None:
    for query, part in (
        ("studies?orderby=PatientWeight", "PatientWeight"), ("studies?orderby=Modality", "Modality"),
        ("series?orderby=Modality", "inside of a study"), ("studies?orderby=StudyTime", "StudyTime"),
    ):  # fmt: skip
        answer = await application.client.get(f"/dicom-web/{query}", headers=headers)
        assert answer.status_code == 200
        assert part in answer.headers["warning"]
    answer = await application.client.get("/dicom-web/studies?orderby=-StudyDate,StudyTime&limit=1", headers=headers)
    assert "StudyTime" in answer.headers["warning"], "days backwards and times forwards is no order of an index"
    assert (await application.client.get("/dicom-web/studies?orderby=Nonsense", headers=headers)).status_code == 400


async def test_a_cursor_goes_on_with_its_own_query_alone(application: Application, headers: dict[str, str]) -> None:
    answer = await application.client.get("/dicom-web/studies?limit=2&orderby=PatientName", headers=headers)
    cursor = answer.links["next"]["url"].rpartition("cursor=")[2]
    get = application.client.get
    more = await get(f"/dicom-web/studies?limit=4&orderby=PatientName&cursor={cursor}", headers=headers)
    assert len(more.json()) == 4, "pages need not be of one size"
    stranger = await application.headers("stranger")
    theirs = await get(f"/dicom-web/studies?limit=2&orderby=PatientName&cursor={cursor}", headers=stranger)
    assert len(theirs.json()) <= 1, "it tells nothing and opens nothing"
    changed = cursor[:-2] + ("A" if cursor[-2] != "A" else "B") + cursor[-1]
    for query in (
        f"orderby=-PatientName&cursor={cursor}", f"orderby=PatientName&PatientID=P1&cursor={cursor}", "cursor=AAAA", "cursor=%F0",
        f"orderby=PatientName&cursor={changed}", f"orderby=PatientName&offset=1&cursor={cursor}", f"cursor={cursor}",
    ):  # fmt: skip
        assert (await get(f"/dicom-web/studies?{query}", headers=headers)).status_code == 400, query


async def test_totals_count_what_is_visible(
    application: Application, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def total(query: str) -> str:
        answer = await application.client.get(f"/dicom-web/{query}", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-total-count"]

    assert await total("studies?limit=2&total=true") == "7"
    assert await total("studies?limit=0&offset=5&total=true") == "7"
    assert await total("series?limit=2&total=true") == "21"
    assert await total("instances?limit=2&total=true&Modality=MR") == "7"
    assert await total("studies?PatientID=P2&total=true") == "2"
    assert await total("studies?PatientName=Hidden*&total=true") == "0"
    plain = await application.client.get("/dicom-web/studies", headers=headers)
    assert "x-total-count" not in plain.headers
    monkeypatch.setattr(archive_query, "MAX_TOTAL", 3)
    monkeypatch.setattr("annotomy.dicomweb.qido.MAX_TOTAL", 3)
    assert await total("studies?limit=2&total=true") == "3+"


async def test_attributes_inside_of_sequences_are_included_alone(application: Application) -> None:
    headers = await application.headers("owner")
    step, code = Dataset(), Dataset()
    code.CodeValue, code.CodeMeaning = "T-1", "Chest"
    step.ScheduledProcedureStepID, step.RequestedProcedureID = "S1", "R1"
    step.ScheduledProtocolCodeSequence = Sequence([code])
    file = edited(ct_series(1)[0], RequestAttributesSequence=Sequence([step, Dataset()]))
    await stow(application, headers, [file])
    path = f"/dicom-web/studies/{dcmread(io.BytesIO(file)).StudyInstanceUID}/series"

    async def included(fields: str) -> Any:
        rows = (await application.client.get(f"{path}?includefield={fields}", headers=headers)).json()
        return rows[0].get("00400275", {}).get("Value")

    assert await included("RequestAttributesSequence.ScheduledProcedureStepID") == [
        {"00400009": {"vr": "SH", "Value": ["S1"]}}, {},
    ]  # fmt: skip
    both = await included("00400275.00400008.00080100,RequestAttributesSequence.RequestedProcedureID")
    assert both[0] == {
        "00400008": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["T-1"]}}]},
        "00401001": {"vr": "SH", "Value": ["R1"]},
    }
    whole = await included("RequestAttributesSequence.RequestedProcedureID,RequestAttributesSequence")
    assert set(whole[0]) == {"00400008", "00400009", "00401001"}
    assert await included("PatientComments.RequestedProcedureID") is None
    deep = ".".join(["RequestAttributesSequence"] * 9)
    for wrong in ("RequestAttributesSequence.", "RequestAttributesSequence.Nonsense", deep):
        answer = await application.client.get(f"{path}?includefield={wrong}", headers=headers)
        assert answer.status_code == 400, wrong


@given(st.data())
def test_what_comes_behind_a_position_is_what_an_order_puts_there(data: st.DataObject) -> None:
    """The conditions, read by Python, agree with sorting: keys of both directions, with and without a value."""
    shape = data.draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=3))
    order = [Key(f"k{n}", descending, nullable=nullable) for n, (descending, nullable) in enumerate(shape)]
    cells = [st.one_of(st.none(), st.integers(0, 2)) if nullable else st.integers(0, 2) for _, nullable in shape]
    rows = sorted(
        data.draw(st.lists(st.tuples(*cells), min_size=1, max_size=12, unique=True)),
        key=lambda row: [
            (value is None, 0 if value is None else -value if key.descending else value)
            for key, value in zip(order, row, strict=True)
        ],
    )
    at = data.draw(st.integers(0, len(rows) - 1))
    values: list[Any] = []
    conditions = behind(order, list(rows[at]), values)
    assert [row for row in rows if all(_holds(one, row, values) for one in conditions)] == rows[at + 1 :]


def _holds(condition: str, row: tuple[Any, ...], values: list[Any]) -> bool:
    """SQL of the few forms that `behind` writes, over one row; a comparison with null is not true."""
    text = condition
    for n in reversed(range(len(values))):
        text = text.replace(f"${n + 1}", f"V[{n}]")
    text = text.replace(" is not distinct from ", " == ").replace(" is null", " == N").replace(" = ", " == ")
    names: dict[str, Any] = {f"k{n}": _Sql(value) for n, value in enumerate(row)}
    return bool(eval(text, {"N": _Sql(None), "V": [_Sql(one) for one in values]}, names))  # noqa: S307 - our own text


class _Sql:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sql) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: "_Sql") -> bool:
        return self.value is not None and other.value is not None and self.value < other.value

    def __gt__(self, other: "_Sql") -> bool:
        return other < self

    def __le__(self, other: "_Sql") -> bool:
        return self < other or (self.value is not None and self.value == other.value)

    def __ge__(self, other: "_Sql") -> bool:
        return other <= self
