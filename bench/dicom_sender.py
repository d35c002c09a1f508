"""A C-STORE sender that is never the bottleneck: messages ready in memory, no Nagle, answers read as they come.

Debian's dcmtk leaves Nagle on and writes a PDU in two pieces, so that it waits some 40 ms for each delayed acknowledgement:
it shows what a scanner built on it sees, this one shows what the server can do.
"""

import socket
import threading
import time

from annotomy.dicom.part10 import data_set_start
from annotomy.dimse.command import E, Field, decode_command, encode_command
from annotomy.dimse.pdu import (
    AssociateAccept,
    AssociateRequest,
    Data,
    PduDecoder,
    ProposedContext,
    ReleaseReply,
    ReleaseRequest,
    UserInformation,
    data_head,
    encode,
)
from bench.corpus import Instance
from bench.measure import Sample, cpu_seconds
from bench.servers import Server

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
MAX_PDU = 131_072
TIMEOUT_S = 120.0


class Association:
    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection((server.host, server.dicom_port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = PduDecoder()
        contexts = (ProposedContext(1, CT_IMAGE_STORAGE, (EXPLICIT,)),)
        self._socket.sendall(
            encode(AssociateRequest(server.ae_title, "BENCHSCU", contexts, UserInformation(MAX_PDU, "1.2.3")))
        )
        answer = self._receive()
        assert isinstance(answer, AssociateAccept), answer
        assert answer.contexts[0].result == 0, answer
        self.fragment_bytes = min(answer.user.max_length or MAX_PDU, MAX_PDU) - 6

    def store(self, message: bytes) -> int:
        self._socket.sendall(message)
        # A server that answers in two writes and leaves Nagle on must not wait for our delayed acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        answer = self._receive()
        assert isinstance(answer, Data), answer
        return decode_command(bytes(answer.fragments[0].data))[E.STATUS]

    def release(self) -> None:
        self._socket.sendall(encode(ReleaseRequest()))
        assert isinstance(self._receive(), ReleaseReply)
        self._socket.close()

    def _receive(self) -> object:
        while True:
            data = self._socket.recv(1 << 16)
            assert data, "the server closed the connection"
            for pdu in self._decoder.feed(data):
                return pdu


def store_message(instance: Instance, fragment_bytes: int, message_id: int) -> bytes:
    command = encode_command(
        {
            E.AFFECTED_SOP_CLASS_UID: CT_IMAGE_STORAGE, E.COMMAND_FIELD: int(Field.C_STORE_RQ), E.MESSAGE_ID: message_id,
            E.PRIORITY: 0, E.DATA_SET_TYPE: 1, E.AFFECTED_SOP_INSTANCE_UID: instance.sop_instance_uid,
        }
    )  # fmt: skip
    parts = [data_head(1, len(command), is_command=True, is_last=True), command]
    data = memoryview(instance.data)[data_set_start(instance.data) :]
    for at in range(0, len(data), fragment_bytes):
        piece = data[at : at + fragment_bytes]
        parts += [data_head(1, len(piece), is_command=False, is_last=at + fragment_bytes >= len(data)), bytes(piece)]
    return b"".join(parts)


def store_all(server: Server, instances: list[Instance], *, associations: int) -> Sample:
    """Every instance once, divided over the associations. Raises AssertionError for any status but success."""
    opened = [Association(server) for _ in range(associations)]
    work = [
        [
            store_message(one, association.fragment_bytes, n % 65535 + 1)
            for n, one in enumerate(instances[k::associations])
        ]
        for k, association in enumerate(opened)
    ]
    latencies: list[float] = []
    failures: list[str] = []

    def send(association: Association, messages: list[bytes]) -> None:
        try:
            for message in messages:
                began = time.perf_counter()
                status = association.store(message)
                latencies.append(1000 * (time.perf_counter() - began))
                if status:
                    failures.append(f"{server.name}: C-STORE answered {status:04X}")
                    return
        except (OSError, AssertionError) as error:
            failures.append(f"{server.name}: {error!r}")

    before, began = cpu_seconds(server), time.perf_counter()
    threads = [threading.Thread(target=send, args=pair) for pair in zip(opened, work, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - began, cpu_seconds(server) - before
    if failures:
        raise AssertionError(failures[0])
    for association in opened:
        association.release()
    return Sample(seconds, cpu, latencies, sent_bytes=sum(len(message) for part in work for message in part))
