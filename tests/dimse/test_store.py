"""C-STORE: success means committed, the data set is kept bit for bit, and every refusal has its status."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE

from annotomy.actor import SYSTEM
from annotomy.archive.query import Query, query
from annotomy.archive.retrieve import locate, read_instance
from annotomy.dicom.part10 import data_set_start
from annotomy.dimse import incoming_data
from annotomy.dimse.command import E, Field, decode_command, encode_command
from annotomy.dimse.pdu import AssociateAccept, ProposedContext, ReleaseReply, ReleaseRequest, data_head, encode
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.dimse.server import Listener
from annotomy.services import Services
from tests.dimse.test_associations import RawPeer, request
from tests.support.dicom_files import ct_instance, ct_series
from tests.support.dicom_listener import OUR_TITLE, PEER_TITLE, dcmtk, in_thread, peer_actor

EXPLICIT = "1.2.840.10008.1.2.1"


def send(port: int, files: list[bytes], *, title: str = PEER_TITLE) -> list[int]:
    """The status of each, by pynetdicom over one association."""
    ae = AE(ae_title=title)
    for uid in (CTImageStorage, MRImageStorage):
        ae.add_requested_context(uid, EXPLICIT)
    association = ae.associate("127.0.0.1", port, ae_title=OUR_TITLE)
    assert association.is_established
    statuses = [association.send_c_store(dcmread(io.BytesIO(data))).Status for data in files]
    association.release()
    return statuses


def data_set_of(file: bytes) -> bytes:
    return file[data_set_start(file) :]


async def kept(services: Services, sop_instance_uid: str, title: str = PEER_TITLE) -> bytes:
    async with services.db.read(await peer_actor(services, title)) as tx:
        [at] = await locate(tx, sop_instance_uid=sop_instance_uid)
    return await read_instance(services, at)


def uid_of(file: bytes) -> str:
    return str(dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID)


async def test_a_series_is_kept_bit_for_bit_and_again_is_no_error(services: Services, listener: Listener) -> None:
    files = ct_series(3)
    assert await in_thread(lambda: send(listener.port, files)) == [0, 0, 0]
    assert await in_thread(lambda: send(listener.port, files)) == [0, 0, 0]
    for file in files:
        whole = await kept(services, uid_of(file))
        assert data_set_of(whole) == data_set_of(file)
        assert dcmread(io.BytesIO(whole)).file_meta.TransferSyntaxUID == EXPLICIT
    async with services.db.read(await peer_actor(services)) as tx:
        [study] = (await query(tx, Query("study"))).rows
    assert study["00201208"]["Value"] == [3]


async def test_the_status_says_why_not(services: Services, listener: Listener) -> None:
    study, series, uid = generate_uid(), generate_uid(), generate_uid()
    first, other = (
        ct_instance(study_instance_uid=study, series_instance_uid=series, sop_instance_uid=uid, number=n)
        for n in (1, 2)
    )
    elsewhere = ct_instance(study_instance_uid=generate_uid(), series_instance_uid=series)
    assert await in_thread(lambda: send(listener.port, [first, other, elsewhere])) == [0, 0x0111, 0]
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("THIEF"))
        await add_peer(tx, NewPeer("READER", may_store=False))
    probe = ct_instance(study_instance_uid=study, series_instance_uid=generate_uid())
    # Who does not see the study is not told of it: what they send is kept for them, as of any other (decision 10).
    assert await in_thread(lambda: send(listener.port, [probe], title="THIEF")) == [0]
    assert await in_thread(lambda: send(listener.port, [probe], title="READER")) == [0x0124]


async def store_raw(listener: Listener, file: bytes, data: bytes, *, uid: str | None = None) -> int:
    """The status of one C-STORE whose data set is `data`, whatever that is."""
    peer = await RawPeer.connect(listener.port)
    await peer.send(request(ProposedContext(1, str(CTImageStorage), (EXPLICIT,))))
    assert isinstance(await peer.receive(), AssociateAccept)
    await peer.send(store_message(uid or uid_of(file), data))
    status = status_of(await peer.receive())
    await peer.send(encode(ReleaseRequest()))
    assert await peer.receive() == ReleaseReply()
    await peer.close()
    return status


def status_of(answer: Any) -> int:
    """Of a response in one PDU."""
    return decode_command(bytes(answer.fragments[0].data))[E.STATUS]


def store_message(
    uid: str, data: bytes, message_id: int = 1, fragment: int = 16000, sop_class_uid: str = CTImageStorage
) -> bytes:
    command = encode_command(
        {
            E.AFFECTED_SOP_CLASS_UID: str(sop_class_uid), E.COMMAND_FIELD: int(Field.C_STORE_RQ),
            E.MESSAGE_ID: message_id, E.PRIORITY: 0, E.DATA_SET_TYPE: 1, E.AFFECTED_SOP_INSTANCE_UID: uid,
        }
    )  # fmt: skip
    parts = [data_head(1, len(command), is_command=True, is_last=True), command]
    for at in range(0, len(data), fragment):
        piece = data[at : at + fragment]
        parts += [data_head(1, len(piece), is_command=False, is_last=at + fragment >= len(data)), piece]
    return b"".join(parts)


async def test_what_cannot_be_understood_or_is_another_instance_is_refused(listener: Listener) -> None:
    [file] = ct_series(1)
    good = data_set_of(file)
    assert await store_raw(listener, file, good[:200]) == 0xC000
    assert await store_raw(listener, file, b"\xff" * 300) == 0xC000
    assert await store_raw(listener, file, good, uid="1.2.3.4") == 0xA900
    assert await store_raw(listener, file, good) == 0


async def test_a_large_instance_goes_through_a_file(
    services: Services, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming_data, "IN_MEMORY_BYTES", 20_000)
    monkeypatch.setattr(incoming_data, "FILE_PIECE_BYTES", 30_000)
    file = ct_instance(study_instance_uid=generate_uid(), series_instance_uid=generate_uid(), size=256)
    assert await in_thread(lambda: send(listener.port, [file])) == [0]
    assert data_set_of(await kept(services, uid_of(file))) == data_set_of(file)
    assert left_behind(services) == []


def left_behind(services: Services) -> list[Path]:
    return list((services.settings.spool_dir).iterdir())


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_an_end_in_mid_transfer_leaves_nothing(
    services: Services, listener: Listener, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(incoming_data, "IN_MEMORY_BYTES", 20_000)
    monkeypatch.setattr(incoming_data, "FILE_PIECE_BYTES", 30_000)
    file = ct_instance(study_instance_uid=generate_uid(), series_instance_uid=generate_uid(), size=256)
    peer = await RawPeer.connect(listener.port)
    await peer.send(request(ProposedContext(1, str(CTImageStorage), (EXPLICIT,))))
    assert isinstance(await peer.receive(), AssociateAccept)
    await peer.send(store_message(uid_of(file), data_set_of(file))[:100_000])
    await until(lambda: left_behind(services) != [])
    if how == "abort":
        await peer.send(encode_abort())
    await peer.close()
    await until(lambda: left_behind(services) == [])
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from instances") == 0


def encode_abort() -> bytes:
    from annotomy.dimse.pdu import Abort

    return encode(Abort(0, 0))


async def until(true: Any) -> None:
    """Polls what nothing announces to a test: the listener's own work after a peer is gone."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_window_of_operations_shares_commits(services: Services, listener: Listener) -> None:
    files = ct_series(12)
    peer = await RawPeer.connect(listener.port)
    await peer.send(request(ProposedContext(1, str(CTImageStorage), (EXPLICIT,)), window=(16, 1)))
    assert isinstance(await peer.receive(), AssociateAccept)
    await peer.send(b"".join(store_message(uid_of(f), data_set_of(f), n) for n, f in enumerate(files, 1)))
    answered: set[int] = set()
    while len(answered) < len(files):
        answer: Any = await peer.receive()
        command = decode_command(bytes(answer.fragments[0].data))
        assert command[E.STATUS] == 0
        answered.add(command[E.MESSAGE_ID_RESPONDED_TO])
    assert answered == set(range(1, 13))
    await peer.close()
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from instances") == 12
        transactions = await tx.fetchval("select count(*) from events where type = 'study.stored'")
    assert transactions < 12, "each instance had a transaction of its own"


async def test_dcmtk_stores(services: Services, listener: Listener, tmp_path: Path) -> None:
    for number, data in enumerate(ct_series(3)):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    common = ("-aet", PEER_TITLE, "-aec", OUR_TITLE, "127.0.0.1", str(listener.port))
    status, out = await dcmtk("storescu", *common, "+sd", str(tmp_path))
    assert status == 0, out
    status, out = await dcmtk("dcmsend", *common, "+sd", str(tmp_path))
    assert status == 0, out
    async with services.db.read(await peer_actor(services)) as tx:
        assert await tx.fetchval("select count(*) from instances") == 3
