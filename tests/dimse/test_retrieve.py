"""C-GET and C-MOVE: what was stored comes back byte for byte, or uncompressed, or counted as failed."""

import asyncio
import contextlib
import io
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE, build_role, evt

from annotomy.actor import SYSTEM
from annotomy.archive.downloads import admit_download
from annotomy.archive.store import Incoming
from annotomy.dicom.part10 import data_set_start
from annotomy.dimse import retrieve
from annotomy.dimse.negotiation import PATIENT_ROOT_GET, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.dimse.server import Listener
from annotomy.ops.audit_chain import AuditChain
from annotomy.services import Services
from tests.dimse.test_store import data_set_of, send, uid_of
from tests.support.dicom_files import ct_instance, ct_series
from tests.support.dicom_listener import OUR_TITLE, PEER_TITLE, dcmtk, in_thread, peer_actor

GET, MOVE = UID(STUDY_ROOT_GET), UID(STUDY_ROOT_MOVE)
RLE = "1.2.840.10008.1.2.5"


class Received:
    """A store handler of pynetdicom that keeps the encoded data sets."""

    def __init__(self, status: int = 0) -> None:
        self.by_uid: dict[str, bytes] = {}
        self.syntax: dict[str, str] = {}
        self.status = status

    def __call__(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.by_uid[uid] = event.request.DataSet.getvalue()
        self.syntax[uid] = str(event.context.transfer_syntax)
        return self.status


def identifier(level: str, **keys: Any) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


def c_get(
    port: int, asked: Dataset, received: Received, *, model: Any = GET, title: str = PEER_TITLE, syntaxes: Any = None
) -> list[Any]:
    """The statuses."""
    ae = AE(ae_title=title)
    ae.add_requested_context(model)
    roles: list[Any] = []
    for storage in (CTImageStorage, MRImageStorage):
        ae.add_requested_context(storage, syntaxes or [ExplicitVRLittleEndian])
        roles.append(build_role(storage, scp_role=True))
    association = ae.associate(
        "127.0.0.1", port, ae_title=OUR_TITLE, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, received)]
    )
    assert association.is_established
    statuses = [status for status, _ in association.send_c_get(asked, model)]
    association.release()
    return statuses


def study_of(file: bytes) -> str:
    return str(dcmread(io.BytesIO(file), stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture
async def stored(listener: Listener) -> list[bytes]:
    files = ct_series(4)
    assert await in_thread(lambda: send(listener.port, files)) == [0] * 4
    return files


async def test_a_study_comes_back_byte_for_byte(listener: Listener, stored: list[bytes]) -> None:
    received = Received()
    asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
    *pending, final = await in_thread(lambda: c_get(listener.port, asked, received))
    assert final.Status == 0
    assert final.NumberOfCompletedSuboperations == 4
    assert [p.NumberOfRemainingSuboperations for p in pending] == [3, 2, 1, 0]
    assert received.by_uid == {uid_of(file): data_set_of(file) for file in stored}


async def test_a_large_instance_is_streamed_whole(
    listener: Listener, stored: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieve, "WHOLE_BYTES", 100)
    received = Received()
    asked = identifier("PATIENT", PatientID="T-1")
    final = (await in_thread(lambda: c_get(listener.port, asked, received, model=UID(PATIENT_ROOT_GET))))[-1]
    assert final.Status == 0
    assert received.by_uid == {uid_of(file): data_set_of(file) for file in stored}


async def test_instances_are_chosen_by_lists_of_uids(listener: Listener, stored: list[bytes]) -> None:
    received = Received()
    uids = [uid_of(file) for file in stored[:2]]
    asked = identifier("IMAGE", StudyInstanceUID=study_of(stored[0]), SOPInstanceUID=uids)
    final = (await in_thread(lambda: c_get(listener.port, asked, received)))[-1]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0, 2)
    assert set(received.by_uid) == set(uids)


async def test_nobody_gets_what_their_principal_may_not_see(
    services: Services, listener: Listener, stored: list[bytes]
) -> None:
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("STRANGER"))
        await add_peer(tx, NewPeer("SENDER", may_retrieve=False))
    received = Received()
    asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
    final = (await in_thread(lambda: c_get(listener.port, asked, received, title="STRANGER")))[-1]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0, 0)
    final = (await in_thread(lambda: c_get(listener.port, asked, received, title="SENDER")))[-1]
    assert final.Status == 0x0124
    assert received.by_uid == {}


async def test_failures_are_counted_and_named(listener: Listener, stored: list[bytes]) -> None:
    asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
    final = (await in_thread(lambda: c_get(listener.port, asked, Received(status=0xA700))))[-1]
    assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 4)
    warned = (await in_thread(lambda: c_get(listener.port, asked, Received(status=0xB000))))[-1]
    assert (warned.Status, warned.NumberOfWarningSuboperations) == (0xB000, 4)
    empty = identifier("STUDY")
    assert (await in_thread(lambda: c_get(listener.port, empty, Received())))[-1].Status == 0xA900


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
async def test_compressed_instances_go_uncompressed_to_who_takes_no_other(
    services: Services, listener: Listener, name: str, syntax: str
) -> None:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    file = Path(path).read_bytes()
    await put(services, file)
    received = Received()
    asked = identifier("STUDY", StudyInstanceUID=study_of(file))
    final = (await in_thread(lambda: c_get(listener.port, asked, received, syntaxes=[syntax])))[-1]
    assert final.Status == 0
    original = dcmread(io.BytesIO(file))
    [(uid, data)] = received.by_uid.items()
    assert received.syntax[uid] == syntax
    got = dcmread(io.BytesIO(data), force=True) if syntax == ImplicitVRLittleEndian else read_explicit(data)
    got.file_meta = Dataset()  # pyright: ignore[reportAttributeAccessIssue]
    got.file_meta.TransferSyntaxUID = syntax
    assert (got.pixel_array == original.pixel_array).all()
    assert got.PatientName == original.PatientName


def read_explicit(data: bytes) -> Any:
    from pydicom.filereader import read_dataset

    return read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)


async def put(services: Services, file: bytes) -> None:
    """Stores the file as it is, for the test's peer."""
    from annotomy.archive.group_commit import GroupCommit

    outcome = await GroupCommit(services).store(await peer_actor(services), None, Incoming("", data=file))
    assert outcome.state == "stored", outcome


async def test_compressed_instances_go_as_they_are_to_who_takes_them(services: Services, listener: Listener) -> None:
    path = get_testdata_file("MR_small_RLE.dcm")
    assert isinstance(path, str)
    file = Path(path).read_bytes()
    await put(services, file)
    received = Received()
    asked = identifier("STUDY", StudyInstanceUID=study_of(file))
    final = (await in_thread(lambda: c_get(listener.port, asked, received, syntaxes=[RLE])))[-1]
    assert final.Status == 0
    assert list(received.by_uid.values()) == [file[data_set_start(file) :]]


@contextlib.contextmanager
def storage_scp(received: Received, title: str = "TARGET") -> Generator[int]:
    """The port of a pynetdicom storage SCP."""
    ae = AE(ae_title=title)
    for storage in (CTImageStorage, MRImageStorage):
        ae.add_supported_context(storage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLE])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, received)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def c_move(port: int, asked: Dataset, destination: str) -> list[Any]:
    ae = AE(ae_title=PEER_TITLE)
    ae.add_requested_context(MOVE)
    association = ae.associate("127.0.0.1", port, ae_title=OUR_TITLE)
    statuses = [status for status, _ in association.send_c_move(asked, destination, MOVE)]
    association.release()
    return statuses


async def test_a_study_moves_to_a_known_destination(
    services: Services, listener: Listener, stored: list[bytes]
) -> None:
    received = Received()
    with storage_scp(received) as port:
        async with services.db.write(SYSTEM) as tx:
            await add_peer(tx, NewPeer("TARGET", host="127.0.0.1", port=port))
        asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
        *pending, final = await in_thread(lambda: c_move(listener.port, asked, "TARGET"))
    assert (final.Status, final.NumberOfCompletedSuboperations, len(pending)) == (0, 4, 4)
    assert received.by_uid == {uid_of(file): data_set_of(file) for file in stored}


async def test_a_move_to_nowhere_says_so(services: Services, listener: Listener, stored: list[bytes]) -> None:
    asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
    assert (await in_thread(lambda: c_move(listener.port, asked, "NOBODY")))[-1].Status == 0xA801
    with storage_scp(Received()) as port:
        pass  # it listens no more
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("GONE", host="127.0.0.1", port=port))
    final = (await in_thread(lambda: c_move(listener.port, asked, "GONE")))[-1]
    assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 4)


async def test_a_target_that_goes_in_mid_move_is_counted(
    services: Services, listener: Listener, stored: list[bytes]
) -> None:
    received = Received()

    def drop_after_two(event: Any) -> int:
        status = received(event)
        if len(received.by_uid) == 2:
            event.assoc.abort()
        return status

    with storage_scp(drop_after_two) as port:  # pyright: ignore[reportArgumentType]
        async with services.db.write(SYSTEM) as tx:
            await add_peer(tx, NewPeer("TARGET", host="127.0.0.1", port=port))
        asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
        final = (await in_thread(lambda: c_move(listener.port, asked, "TARGET")))[-1]
    assert final.Status == 0xB000
    assert final.NumberOfCompletedSuboperations + final.NumberOfFailedSuboperations == 4
    assert final.NumberOfFailedSuboperations >= 2


async def test_a_cancelled_get_stops(listener: Listener) -> None:
    study, series = generate_uid(), generate_uid()
    files = [ct_instance(study_instance_uid=study, series_instance_uid=series, number=n) for n in range(1, 31)]
    assert set(await in_thread(lambda: send(listener.port, files))) == {0}
    received = Received()

    def work() -> list[Any]:
        ae = AE(ae_title=PEER_TITLE)
        ae.add_requested_context(GET)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)

        def store(event: Any) -> int:
            if len(received.by_uid) == 2:
                association.send_c_cancel(5, query_model=GET)
            return received(event)

        association = ae.associate(
            "127.0.0.1", listener.port, ae_title=OUR_TITLE, ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, store)],
        )  # fmt: skip
        statuses = [
            status for status, _ in association.send_c_get(identifier("STUDY", StudyInstanceUID=study), GET, msg_id=5)
        ]
        association.release()
        return statuses

    final = (await in_thread(work))[-1]
    assert final.Status == 0xFE00
    assert final.NumberOfRemainingSuboperations > 0
    assert len(received.by_uid) < 30


async def test_dcmtk_gets_and_moves(
    services: Services, listener: Listener, stored: list[bytes], tmp_path: Path, unused_tcp_port: int
) -> None:
    common = (
        "-S",
        "-aet",
        PEER_TITLE,
        "-aec",
        OUR_TITLE,
        "-k",
        "0008,0052=STUDY",
        "-k",
        f"0020,000d={study_of(stored[0])}",
    )
    got, moved = tmp_path / "got", tmp_path / "moved"
    got.mkdir()
    moved.mkdir()
    status, out = await dcmtk("getscu", *common, "-od", str(got), "+B", "127.0.0.1", str(listener.port))
    assert status == 0, out
    assert_same(got, stored)
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("MOVESCU", host="127.0.0.1", port=unused_tcp_port))
    status, out = await dcmtk(
        "movescu", *common, "-aem", "MOVESCU", "--port", str(unused_tcp_port), "+B", "+xa",
        "127.0.0.1", str(listener.port), folder=moved,
    )  # fmt: skip
    assert status == 0, out
    assert_same(moved, stored)


def assert_same(folder: Path, files: list[bytes]) -> None:
    got = {uid_of(path.read_bytes()): data_set_of(path.read_bytes()) for path in folder.iterdir()}
    assert got == {uid_of(file): data_set_of(file) for file in files}


async def test_the_listener_goes_on_after_a_peer_that_leaves_in_mid_get(
    listener: Listener, stored: list[bytes]
) -> None:
    def leave() -> None:
        ae = AE(ae_title=PEER_TITLE)
        ae.add_requested_context(GET)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association: Any = None

        def store(event: Any) -> int:
            association.abort()
            return 0

        association = ae.associate(
            "127.0.0.1", listener.port, ae_title=OUR_TITLE, ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, store)],
        )  # fmt: skip
        for _ in association.send_c_get(identifier("STUDY", StudyInstanceUID=study_of(stored[0])), GET):
            pass

    await in_thread(leave)
    await asyncio.sleep(0)
    received = Received()
    asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
    assert (await in_thread(lambda: c_get(listener.port, asked, received)))[-1].Status == 0


async def _sent(services: Services) -> list[Any]:
    await AuditChain(services.db, services.settings.data_dir).append_all()
    async with services.db.read(SYSTEM) as tx:
        return await tx.fetch(
            "select * from audit where action = 'study.retrieved' and outcome = 'success' order by seq"
        )


async def test_what_was_sent_is_recorded_with_its_destination(
    services: Services, listener: Listener, stored: list[bytes]
) -> None:
    asked = identifier("STUDY", StudyInstanceUID=study_of(stored[0]))
    await in_thread(lambda: c_get(listener.port, asked, Received()))
    [line] = await _sent(services)
    assert (line["study_instance_uid"], line["source"], line["actor_kind"]) == (study_of(stored[0]), "127.0.0.1", "aet")
    assert len(line["patient"]) == 32
    detail = json.loads(line["detail"])
    assert (detail["destination"], detail["instances"]) == ("TESTSCU", 4)


async def test_bulk_needs_the_purpose_that_the_peer_was_registered_with(services: Services, listener: Listener) -> None:
    actor = await peer_actor(services)
    limit = services.settings.audit.bulk_studies
    await admit_download(services, actor, [f"1.2.{n}" for n in range(limit)])
    files = ct_series(2)
    assert await in_thread(lambda: send(listener.port, files)) == [0, 0]
    asked, received = identifier("STUDY", StudyInstanceUID=study_of(files[0])), Received()
    final = (await in_thread(lambda: c_get(listener.port, asked, received)))[-1]
    assert (final.Status, received.by_uid) == (0x0124, {})
    assert await _sent(services) == []
    async with services.db.write(SYSTEM) as tx:
        await tx.execute("update dimse_peers set purpose = 'nightly backup' where ae_title = $1", PEER_TITLE)
    final = (await in_thread(lambda: c_get(listener.port, asked, received)))[-1]
    assert (final.Status, len(received.by_uid)) == (0, 2)
    assert [line["reason"] for line in await _sent(services)] == ["nightly backup"]
