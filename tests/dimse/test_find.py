"""C-FIND: what is asked is found, in the asker's letters, and nobody finds what their principal may not see."""

import io
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE

from annotomy.actor import SYSTEM
from annotomy.dimse import query
from annotomy.dimse.negotiation import PATIENT_ROOT_FIND, STUDY_ROOT_FIND
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.dimse.server import Listener
from annotomy.services import Services
from tests.dimse.test_store import send
from tests.support.dicom_files import ct_series
from tests.support.dicom_listener import OUR_TITLE, PEER_TITLE, dcmtk, in_thread

PATIENT, STUDY = UID(PATIENT_ROOT_FIND), UID(STUDY_ROOT_FIND)
NAMES = {
    "K-1": "Hong^Gildong=洪^吉洞=홍^길동",
    "J-1": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "C-1": "Wang^XiaoDong=王^小东",
    "R-1": "Люкceмбypг",
    "E-1": "Honda^Ken",
}


def ask(port: int, model: Any, title: str = PEER_TITLE, **keys: Any) -> tuple[list[Dataset], int]:
    """The answers and the final status."""
    identifier = Dataset()
    if any(not str(value).isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    ae = AE(ae_title=title)
    ae.add_requested_context(model)
    association = ae.associate("127.0.0.1", port, ae_title=OUR_TITLE)
    assert association.is_established
    answers, final = [], -1
    for status, answer in association.send_c_find(identifier, model):
        if answer is not None:
            answers.append(answer)
        final = status.Status
    association.release()
    return answers, final


@pytest.fixture
async def filled(listener: Listener) -> Listener:
    files = [
        file
        for patient_id, name in NAMES.items()
        for file in ct_series(2, patient_id=patient_id, patient_name=name, study_date="20250505")
    ]
    assert set(await in_thread(lambda: send(listener.port, files))) == {0}
    return listener


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("hon*", {"K-1", "E-1"}),
        ("홍^길동", {"K-1"}),
        ("홍*", {"K-1"}),
        ("洪^吉洞", {"K-1"}),
        ("*길동", {"K-1"}),
        ("山田^太郎", {"J-1"}),
        ("やまだ*", {"J-1"}),
        ("yamada^tarou", {"J-1"}),
        ("王*", {"C-1"}),
        ("люкceмбypг", {"R-1"}),
        ("honda^k?n", {"E-1"}),
        ("Hong^Gildong", {"K-1"}),
        ("太郎", set[str]()),
    ],
)
async def test_names_are_found_by_each_group_of_letters(filled: Listener, asked: str, found: set[str]) -> None:
    answers, final = await in_thread(
        lambda: ask(filled.port, STUDY, QueryRetrieveLevel="STUDY", PatientName=asked, PatientID="")
    )
    assert final == 0
    assert {answer.PatientID for answer in answers} == found
    for answer in answers:
        assert str(answer.PatientName) == NAMES[answer.PatientID]


async def test_a_name_in_the_askers_own_character_set_is_found(filled: Listener) -> None:
    def work() -> set[str]:
        identifier = Dataset()
        identifier.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
        identifier.QueryRetrieveLevel, identifier.PatientID = "STUDY", ""
        identifier.PatientName = "Hong^Gildong=洪^吉洞=홍^길동"
        ae = AE(ae_title=PEER_TITLE)
        ae.add_requested_context(STUDY)
        association = ae.associate("127.0.0.1", filled.port, ae_title=OUR_TITLE)
        found = {answer.PatientID for _, answer in association.send_c_find(identifier, STUDY) if answer is not None}
        association.release()
        return found

    assert await in_thread(work) == {"K-1"}


async def test_every_level_answers_the_keys_that_were_asked_for(filled: Listener) -> None:
    def work() -> None:
        patients, _ = ask(filled.port, PATIENT, QueryRetrieveLevel="PATIENT", PatientID="K-1", PatientName="")
        assert [str(p.PatientName) for p in patients] == [NAMES["K-1"]]
        [study], final = ask(
            filled.port, PATIENT, QueryRetrieveLevel="STUDY", PatientID="K-1", StudyInstanceUID="", StudyDate="20250101-20251231",
            NumberOfStudyRelatedInstances="", ModalitiesInStudy="CT", StudyComments="",
        )  # fmt: skip
        assert final == 0
        assert (study.NumberOfStudyRelatedInstances, study.ModalitiesInStudy, study.RetrieveAETitle) == (
            2,
            "CT",
            OUR_TITLE,
        )
        assert study.StudyComments in ("", None)
        [series], _ = ask(
            filled.port, STUDY, QueryRetrieveLevel="SERIES", StudyInstanceUID=study.StudyInstanceUID, SeriesInstanceUID="",
            Modality="",
        )  # fmt: skip
        assert series.Modality == "CT"
        instances, _ = ask(
            filled.port, STUDY, QueryRetrieveLevel="IMAGE", StudyInstanceUID=study.StudyInstanceUID,
            SeriesInstanceUID=series.SeriesInstanceUID, SOPInstanceUID="", InstanceNumber="2",
        )  # fmt: skip
        assert [int(one.InstanceNumber) for one in instances] == [2]
        everything, _ = ask(filled.port, STUDY, QueryRetrieveLevel="STUDY", StudyInstanceUID="")
        assert len(everything) == len(NAMES)

    await in_thread(work)


async def test_what_cannot_be_asked_has_a_failure_status(filled: Listener) -> None:
    def work() -> None:
        for keys in ({"QueryRetrieveLevel": "PATIENT", "PatientID": ""}, {"PatientID": ""}):
            assert ask(filled.port, STUDY, **keys) == ([], 0xA900)
        assert ask(filled.port, STUDY, QueryRetrieveLevel="STUDY", StudyDate="tomorrow") == ([], 0xA900)

    await in_thread(work)


async def test_a_peer_sees_only_what_its_principal_sees(services: Services, filled: Listener) -> None:
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("STRANGER"))
        await add_peer(tx, NewPeer("MUTE", may_query=False))

    def work() -> None:
        keys = {"QueryRetrieveLevel": "STUDY", "PatientID": ""}
        assert ask(filled.port, STUDY, title="STRANGER", **keys) == ([], 0)
        assert ask(filled.port, PATIENT, title="STRANGER", QueryRetrieveLevel="PATIENT", PatientID="") == ([], 0)
        assert ask(filled.port, STUDY, title="MUTE", **keys) == ([], 0x0124)

    await in_thread(work)


async def test_a_cancelled_query_ends_early(filled: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "PAGE_ROWS", 1)

    def work() -> int:
        identifier = Dataset()
        identifier.QueryRetrieveLevel, identifier.PatientID = "STUDY", ""
        ae = AE(ae_title=PEER_TITLE)
        ae.add_requested_context(STUDY)
        association = ae.associate("127.0.0.1", filled.port, ae_title=OUR_TITLE)
        final = -1
        for number, (status, _) in enumerate(association.send_c_find(identifier, STUDY, msg_id=7)):
            if number == 0:
                association.send_c_cancel(7, query_model=STUDY)
            final = status.Status
        association.release()
        return final

    # The peer may have all answers before its cancel arrives; both ends are right, and the association lives on.
    assert await in_thread(work) in (0xFE00, 0x0000)


async def test_dcmtk_finds(filled: Listener, tmp_path: Path) -> None:
    status, out = await dcmtk(
        "findscu", "-S", "-aet", PEER_TITLE, "-aec", OUR_TITLE, "127.0.0.1", str(filled.port), "-X", "-od", str(tmp_path),
        "-k", "0008,0052=STUDY", "-k", "PatientName=Hon*", "-k", "PatientID", "-k", "StudyInstanceUID",
    )  # fmt: skip
    assert status == 0, out
    found = [dcmread(io.BytesIO(path.read_bytes()), force=True) for path in tmp_path.rglob("*.dcm")]
    assert {str(one.PatientID) for one in found} == {"K-1", "E-1"}
    assert NAMES["K-1"] in {str(one.PatientName) for one in found}
