"""docs/conformance.md, DIMSE: every file of pydicom's test set is kept bit for bit or refused for the reason written there."""

import io
import re
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from pydicom import dcmread

from annotomy.actor import SYSTEM
from annotomy.archive.retrieve import locate, read_instance
from annotomy.dicom.part10 import data_set_start
from annotomy.dimse.negotiation import is_storage
from annotomy.dimse.pdu import AssociateAccept, ContextResult, ProposedContext, ReleaseRequest, encode
from annotomy.dimse.server import Listener
from annotomy.services import Services
from tests.dimse.test_associations import RawPeer, request
from tests.dimse.test_store import status_of, store_message
from tests.support.dicom_listener import peer_actor

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
STATEMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


def written_refusals() -> dict[str, int]:
    """File name and status word, from the statement's table of refused files."""
    rows = re.findall(
        r"^\| `(\S+\.dcm)` \| `0x([0-9A-F]{4})` \|", STATEMENT.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {name: int(status, 16) for name, status in rows}


def offered() -> list[Path]:
    """Files that a sender can offer: with file meta information, a storage class and an instance UID."""
    found: list[Path] = []
    for path in sorted(TEST_FILES.glob("*.dcm")):
        data = path.read_bytes()
        if data[128:132] == b"DICM":
            dataset = dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
            syntax = dataset.file_meta.get("TransferSyntaxUID")
            if syntax and is_storage(str(dataset.get("SOPClassUID", ""))) and dataset.get("SOPInstanceUID"):
                found.append(path)
    return found


@pytest.mark.filterwarnings("ignore")
async def test_the_test_set_is_kept_bit_for_bit_or_refused_for_a_written_reason(
    services: Services, listener: Listener
) -> None:
    statuses: dict[str, int] = {}
    changed: list[str] = []
    actor = await peer_actor(services)
    paths = offered()
    assert len(paths) > 60
    for path in paths:
        file = path.read_bytes()
        dataset = dcmread(io.BytesIO(file), stop_before_pixels=True)
        sent = file[data_set_start(file) :]
        statuses[path.name] = await _store(listener.port, dataset, sent)
        if statuses[path.name] == 0:
            async with services.db.read(actor) as tx:
                [at] = await locate(tx, sop_instance_uid=str(dataset.SOPInstanceUID))
            kept = await read_instance(services, at)
            if kept[data_set_start(kept) :] != sent or at.transfer_syntax_uid != dataset.file_meta.TransferSyntaxUID:
                changed.append(path.name)
            async with services.db.write(SYSTEM) as tx:  # many of the files are one instance in other encodings
                await tx.execute("delete from studies")
    assert changed == []
    assert {name: status for name, status in statuses.items() if status} == written_refusals()


async def _store(port: int, dataset: Any, data_set: bytes) -> int:
    peer = await RawPeer.connect(port)
    sop_class_uid = str(dataset.SOPClassUID)
    await peer.send(request(ProposedContext(1, sop_class_uid, (str(dataset.file_meta.TransferSyntaxUID),))))
    accept = await peer.receive()
    assert isinstance(accept, AssociateAccept)
    assert accept.contexts[0].result == ContextResult.ACCEPTED
    await peer.send(store_message(str(dataset.SOPInstanceUID), data_set, sop_class_uid=sop_class_uid))
    status = status_of(await peer.receive())
    await peer.send(encode(ReleaseRequest()))
    await peer.receive()
    await peer.close()
    return status
