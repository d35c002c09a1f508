"""Storage commitment: promised is what was read and hashed again; the result reaches who listens, and who asked."""

import threading
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, generate_uid
from pynetdicom import AE, evt

from annotomy.actor import SYSTEM
from annotomy.archive.retrieve import locate
from annotomy.dimse.negotiation import STORAGE_COMMITMENT
from annotomy.dimse.peers import NewPeer, add_peer, remove_peer
from annotomy.dimse.server import Listener
from annotomy.services import Services
from tests.dimse.test_store import send, uid_of
from tests.support.dicom_files import ct_series
from tests.support.dicom_listener import OUR_TITLE, PEER_TITLE, in_thread, peer_actor
from tests.support.jobs import run_queued_jobs

INSTANCE = UID("1.2.840.10008.1.20.1.1")
MODEL = UID(STORAGE_COMMITMENT)


class Results:
    """What N-EVENT-REPORT brought: event type and data set."""

    def __init__(self) -> None:
        self.got: list[tuple[int, Dataset]] = []
        self.came = threading.Event()

    def __call__(self, event: Any) -> tuple[int, None]:
        self.got.append((event.event_type, event.event_information))
        self.came.set()
        return 0, None


def asked_for(*uids: str) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = generate_uid()
    asked.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
        asked.ReferencedSOPSequence.append(item)
    return asked


def ask(port: int, asked: Dataset, results: Results, *, wait: bool = False, action: int = 1) -> int:
    ae = AE(ae_title=PEER_TITLE)
    ae.add_requested_context(MODEL)
    association = ae.associate("127.0.0.1", port, ae_title=OUR_TITLE, evt_handlers=[(evt.EVT_N_EVENT_REPORT, results)])
    assert association.is_established
    status, _ = association.send_n_action(asked, action, MODEL, INSTANCE)
    assert not wait or results.came.wait(20)
    association.release()
    return status.Status


async def test_what_is_kept_is_promised_and_what_is_not_is_named(services: Services, listener: Listener) -> None:
    files = ct_series(3)
    await in_thread(lambda: send(listener.port, files))
    uids = [uid_of(file) for file in files]
    async with services.db.read(await peer_actor(services)) as tx:
        [damaged] = await locate(tx, sop_instance_uid=uids[2])
    path = (
        services.settings.data_dir
        / "blobs"
        / damaged.blob_address[:2]
        / damaged.blob_address[2:4]
        / damaged.blob_address
    )
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    results, asked = Results(), asked_for(*uids, "1.2.3.4")
    assert await in_thread(lambda: ask(listener.port, asked, results, wait=True)) == 0
    [(kind, told)] = results.got
    assert kind == 2
    assert told.TransactionUID == asked.TransactionUID
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == uids[:2]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in told.FailedSOPSequence] == [
        (uids[2], 0x0110),
        ("1.2.3.4", 0x0112),
    ]


async def test_a_peer_that_listens_gets_the_result_by_a_job(services: Services, listener: Listener) -> None:
    files = ct_series(2)
    await in_thread(lambda: send(listener.port, files))
    user = (await peer_actor(services)).user_id
    results = Results()
    scu = AE(ae_title=PEER_TITLE)
    scu.add_supported_context(MODEL, scu_role=False, scp_role=True)
    server = scu.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, results)])
    assert server is not None
    try:
        async with services.db.write(SYSTEM) as tx:
            username = await tx.fetchval("select username from users where id = $1", user)
            await remove_peer(tx, PEER_TITLE)
            await add_peer(tx, NewPeer(PEER_TITLE, username=username, host="127.0.0.1", port=server.server_address[1]))
        asked = asked_for(*(uid_of(file) for file in files))
        assert await in_thread(lambda: ask(listener.port, asked, results)) == 0
        assert results.got == []
        await run_queued_jobs(services)
    finally:
        server.shutdown()
    [(kind, told)] = results.got
    assert (kind, len(told.ReferencedSOPSequence)) == (1, 2)


async def test_a_request_that_is_none_is_refused(services: Services, listener: Listener) -> None:
    assert await in_thread(lambda: ask(listener.port, asked_for("1.2"), Results(), action=7)) == 0x0123
    async with services.db.write(SYSTEM) as tx:
        user = await tx.fetchval("select u.username from dimse_peers p join users u on u.id = p.user_id")
        await remove_peer(tx, PEER_TITLE)
        await add_peer(tx, NewPeer(PEER_TITLE, username=user, may_store=False))
    assert await in_thread(lambda: ask(listener.port, asked_for("1.2"), Results())) == 0x0124
