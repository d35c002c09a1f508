"""QIDO-RS beyond the plain keys: names by their parts in every script, any attribute included, spans of time, lists of UIDs."""

import io

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from annotomy.archive.included import MAX_ROWS
from tests.dicomweb.test_dicomweb import stow
from tests.support.application import Application
from tests.support.dicom_files import ct_instance, ct_series

NAMES = [
    "Hong^Gildong=洪^吉洞=홍^길동",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "Wang^XiaoDong=王^小東",
    "Müller^Jörg",
    "Test^Anna",
]


@pytest.fixture
async def headers(application: Application) -> dict[str, str]:
    headers = await application.headers("owner")
    for name in NAMES:
        assert (await stow(application, headers, ct_series(1, patient_name=name))).status_code == 200
    return headers


async def names(application: Application, headers: dict[str, str], **query: str) -> set[str]:
    answer = await application.client.get("/dicom-web/studies", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return {row["00100010"]["Value"][0]["Alphabetic"].partition("^")[0] for row in answer.json()}


async def test_names_are_found_by_their_parts_in_any_component_group(
    application: Application, headers: dict[str, str]
) -> None:
    for asked, expected in (
        ("gildong", {"Hong"}), ("hong gil", {"Hong"}), ("Gil^Hong", {"Hong"}), ("홍길동", {"Hong"}), ("길동", {"Hong"}),
        ("홍^길동", {"Hong"}), ("吉洞", {"Hong"}), ("洪吉", {"Hong"}), ("山田太郎", {"Yamada"}), ("たろう", {"Yamada"}),
        ("やまだ たろう", {"Yamada"}), ("王小東", {"Wang"}), ("小東", {"Wang"}), ("xiao", {"Wang"}), ("MÜLLER", {"Müller"}),
        ("anna,test", {"Test"}), ("ong", set[str]()), ("길홍", set[str]()), (".*", set[str]()), ("a(b", set[str]()),
    ):  # fmt: skip
        assert await names(application, headers, PatientName=asked, fuzzymatching="true") == expected, asked
    assert await names(application, headers, PatientName="gildong") == set()  # literal matching stays literal
    for group in ("홍^길동", "山田^太郎", "やまだ^たろう", "王^*"):
        assert len(await names(application, headers, PatientName=group)) == 1, group


async def test_any_attribute_is_included_at_every_level(application: Application) -> None:
    headers = await application.headers("owner")
    files = ct_series(2, patient_name="Hong^Gildong=洪^吉洞=홍^길동")
    first = dcmread(io.BytesIO(files[0]))
    await stow(application, headers, files)
    series = f"/dicom-web/studies/{first.StudyInstanceUID}/series"
    for path in ("/dicom-web/studies", series, f"{series}/{first.SeriesInstanceUID}/instances"):
        plain = (await application.client.get(path, headers=headers)).json()[0]
        assert "00200032" not in plain
        query = {"includefield": "ImagePositionPatient,00180050", "limit": "10"}
        found = (await application.client.get(path, params=query, headers=headers)).json()
        assert found[0]["00200032"]["Value"][:2] == [-10, -20]
        assert found[0]["00180050"]["vr"] == "DS"
        assert found[0].items() >= plain.items()
    instances = f"{series}/{first.SeriesInstanceUID}/instances"
    found = (await application.client.get(f"{instances}?includefield=00200032", headers=headers)).json()
    assert sorted(row["00200032"]["Value"][2] for row in found) == [2.5, 5]
    many = await application.client.get(f"{instances}?includefield=00200032&limit=100000", headers=headers)
    assert f"for {MAX_ROWS} results" in many.headers["warning"]
    assert (await application.client.get(f"{instances}?includefield=all", headers=headers)).status_code == 200
    assert (await application.client.get(f"{instances}?includefield=Nonsense", headers=headers)).status_code == 400
    pixels = (await application.client.get(f"{instances}?includefield=7FE00010", headers=headers)).json()
    assert "7FE00010" not in pixels[0]
    stranger = await application.headers("stranger")
    assert (await application.client.get(f"{instances}?includefield=00200032", headers=stranger)).json() == []


async def test_days_and_times_make_one_span_and_uids_a_list(application: Application) -> None:
    headers = await application.headers("owner")
    uids = [generate_uid() for _ in range(3)]
    files = [
        ct_instance(study_instance_uid=uid, series_instance_uid=generate_uid(), study_date=f"2026010{n}")
        for n, uid in enumerate(uids, 1)
    ]  # each at 10:15:00
    await stow(application, headers, files)

    async def found(query: str) -> list[int]:
        answer = await application.client.get(f"/dicom-web/studies?{query}", headers=headers)
        assert answer.status_code == 200, answer.text
        return sorted(uids.index(row["0020000D"]["Value"][0]) + 1 for row in answer.json())

    # Taken one by one, times from 11 to 10:14 would match nothing.
    assert await found("StudyDate=20260101-20260103&StudyTime=1100-1014") == [2]
    assert await found("StudyDate=20260101-20260103&StudyTime=101500-101500") == [1, 2, 3]
    assert await found("StudyDate=20260102-&StudyTime=1015-") == [2, 3]
    assert await found("StudyDate=20260102-&StudyTime=1016-") == [3]
    assert await found("StudyDate=-20260102&StudyTime=-1014") == [1]
    assert await found(f"StudyInstanceUID={uids[0]},{uids[2]}") == [1, 3]
    assert await found(f"StudyInstanceUID={uids[0]}&StudyInstanceUID={uids[1]}") == [1, 2]
    wrong = await application.client.get("/dicom-web/studies?StudyDate=20260101-&StudyTime=-10", headers=headers)
    assert wrong.status_code == 400
