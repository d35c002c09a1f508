"""What a person sees and gets through DIMSE: C-FIND at each level and C-GET, as a peer that acts for them."""

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from annotomy.dimse.negotiation import STUDY_ROOT_FIND, STUDY_ROOT_GET
from tests.access.archives import INSTANCE_VALUES
from tests.support.dicom_listener import OUR_TITLE

FIND, GET = UID(STUDY_ROOT_FIND), UID(STUDY_ROOT_GET)
UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


def look(port: int, title: str, studies: set[str]) -> tuple[dict[str, list[str]], set[str]]:
    """The UIDs that C-FIND lists, by level, and the instances that come when each of these studies is asked for by C-GET."""
    received: set[str] = set()

    def keep(event: evt.Event) -> int:
        received.add(str(event.request.AffectedSOPInstanceUID))  # pyright: ignore[reportAttributeAccessIssue]
        return 0

    ae = AE(ae_title=title)
    ae.add_requested_context(FIND)
    ae.add_requested_context(GET)
    classes = INSTANCE_VALUES["SOPClassUID"]
    for one in classes:
        ae.add_requested_context(one, [ExplicitVRLittleEndian])
    roles = [build_role(UID(one), scp_role=True) for one in classes]
    association = ae.associate(
        "127.0.0.1", port, ae_title=OUR_TITLE, ext_neg=list(roles), evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert association.is_established
    listed: dict[str, list[str]] = {}
    for level, keyword in UNIQUE.items():
        asked = Dataset()
        asked.QueryRetrieveLevel = level
        setattr(asked, keyword, "")
        answers = list(association.send_c_find(asked, FIND))
        assert answers[-1][0].Status == 0
        listed[level] = [str(getattr(answer, keyword)) for _, answer in answers if answer is not None]
    for study in sorted(studies):
        asked = Dataset()
        asked.QueryRetrieveLevel = "STUDY"
        asked.StudyInstanceUID = study
        *_, (final, _) = association.send_c_get(asked, GET)
        assert final.Status == 0
    association.release()
    return listed, received
