"""kill -9 of the DICOM listener, the server or PostgreSQL while instances arrive by C-STORE.

Whatever was answered with success is there afterwards, byte for byte; what is listed is whole; no half-received file stays.
"""

import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from annotomy.dimse.incoming_data import FILE_PREFIX
from annotomy.dimse.negotiation import STUDY_ROOT_FIND, STUDY_ROOT_GET
from tests.crash.test_kill import killing
from tests.db.private_data import data_folder
from tests.support.dicom_files import ct_series
from tests.support.serve import Serve, wait_until

FEW = [("dimse", 1), ("postmaster", 3)]
MANY = [(target, seed) for target in ("dimse", "server", "postmaster") for seed in range(200, 225)]
POINTS = [*FEW, *(pytest.param(*point, marks=pytest.mark.long) for point in MANY)]
ASSOCIATIONS_S = 60.0
"""For a whole run of association attempts, restarts of the listener included."""
FIND, GET = UID(STUDY_ROOT_FIND), UID(STUDY_ROOT_GET)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def serve(port: int) -> Iterator[Serve]:
    with data_folder() as data:
        started = Serve(data, ANNOTOMY_DIMSE_PORT=str(port), ANNOTOMY_DIMSE_OPEN="1").start()
        wait_until(lambda: listens(port), "the DICOM listener answers", 60)
        yield started
        started.stop()


@pytest.mark.parametrize(("target", "seed"), POINTS)
def test_a_kill_while_instances_arrive(serve: Serve, port: int, target: str, seed: int) -> None:
    files = ct_series(80)
    acknowledged: dict[str, bytes] = {}
    with killing(serve, target, seed):
        store_all(port, files, acknowledged)
    assert len(acknowledged) == len(files), "after the restart everything can be stored"
    kept = retrieve(port, str(dcmread(io.BytesIO(files[0])).StudyInstanceUID))
    assert kept == acknowledged
    assert [path for path in (serve.data / "blobs" / "tmp").iterdir() if path.name.startswith(FILE_PREFIX)] == []


def store_all(port: int, files: list[bytes], acknowledged: dict[str, bytes]) -> None:
    """Sends until every file is acknowledged, over a new association whenever one breaks."""
    waiting = [dcmread(io.BytesIO(file)) for file in files]
    deadline = time.monotonic() + ASSOCIATIONS_S
    while waiting:
        assert time.monotonic() < deadline, "no association for too long"
        association = sender().associate("127.0.0.1", port, ae_title="ANNOTOMY")
        while waiting and association.is_established:
            status = association.send_c_store(waiting[0])
            if status and status.Status == 0:
                dataset = waiting.pop(0)
                acknowledged[str(dataset.SOPInstanceUID)] = encoded(dataset)
        if association.is_established:
            association.release()


def sender() -> AE:
    ae = AE(ae_title="KILLTEST")
    ae.connection_timeout, ae.network_timeout, ae.dimse_timeout, ae.acse_timeout = 5, 15, 15, 5
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    return ae


def encoded(dataset: Any) -> bytes:
    from pynetdicom.dsutils import encode

    data = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return data


def retrieve(port: int, study_instance_uid: str) -> dict[str, bytes]:
    """What a C-GET of the study brings; C-FIND has to list exactly the same."""
    got: dict[str, bytes] = {}

    def store(event: Any) -> int:
        got[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0

    ae = sender()
    for model in (FIND, GET):
        ae.add_requested_context(model)
    association = ae.associate(
        "127.0.0.1", port, ae_title="ANNOTOMY", ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )  # fmt: skip
    assert association.is_established
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", study_instance_uid
    final = [status for status, _ in association.send_c_get(asked, GET)][-1]
    assert final.Status == 0
    listed = Dataset()
    listed.QueryRetrieveLevel, listed.StudyInstanceUID, listed.SOPInstanceUID = "IMAGE", study_instance_uid, ""
    uids = {str(row.SOPInstanceUID) for _, row in association.send_c_find(listed, FIND) if row is not None}
    association.release()
    assert uids == got.keys()
    return got


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_half_received_file_of_a_killed_listener_is_removed(serve: Serve, port: int) -> None:
    folder = serve.data / "blobs" / "tmp"
    left = folder / f"{FILE_PREFIX}left-behind"
    left.write_bytes(b"half an instance")
    killed = serve.pid("dimse")
    serve.kill("dimse")
    wait_until(lambda: serve.pid("dimse") != killed, "the listener runs again")
    wait_until(lambda: not Path(left).exists(), "the file is gone")
