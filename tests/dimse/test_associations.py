"""Associations: who is let in, what is agreed on, how they end; with pynetdicom and with raw bytes."""

import asyncio
import struct
import time

import pytest
from pynetdicom import AE

from annotomy.actor import SYSTEM
from annotomy.dimse.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    Pdu,
    PduDecoder,
    ProposedContext,
    ReleaseReply,
    ReleaseRequest,
    Role,
    UserInformation,
    data_head,
    encode,
)
from annotomy.dimse.peers import NewPeer, add_peer, remove_peer
from annotomy.dimse.server import Deadlines, Listener
from annotomy.services import Services
from tests.support.dicom_listener import OUR_TITLE, PEER_TITLE, dcmtk, in_thread, listening

IMPLICIT = "1.2.840.10008.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"


def request(*contexts: ProposedContext, calling: str = PEER_TITLE, called: str = OUR_TITLE, **user: object) -> bytes:
    proposed = contexts or (ProposedContext(1, "1.2.840.10008.1.1", (IMPLICIT,)),)
    return encode(AssociateRequest(called, calling, proposed, UserInformation(**user)))  # pyright: ignore[reportArgumentType]


class RawPeer:
    """A socket that says exactly what the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = PduDecoder()
        self._pdus: list[Pdu] = []

    @classmethod
    async def connect(cls, port: int) -> "RawPeer":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> Pdu | None:
        """None when the connection was closed."""
        while not self._pdus:
            try:
                data = await asyncio.wait_for(self.reader.read(65536), 20)
            except ConnectionError:
                return None
            if not data:
                return None
            self._pdus += self._decoder.feed(data)
        return self._pdus.pop(0)

    async def close(self) -> None:
        self.writer.close()


async def test_echo_is_answered(listener: Listener) -> None:
    def echo() -> int:
        ae = AE(ae_title=PEER_TITLE)
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate("127.0.0.1", listener.port, ae_title=OUR_TITLE)
        assert association.is_established
        status = association.send_c_echo()
        association.release()
        assert association.is_released
        return status.Status

    assert await in_thread(echo) == 0


async def test_dcmtk_echoes(listener: Listener) -> None:
    status, out = await dcmtk("echoscu", "-aet", PEER_TITLE, "-aec", OUR_TITLE, "127.0.0.1", str(listener.port))
    assert status == 0, out


@pytest.mark.parametrize(
    ("calling", "called", "reason"), [("STRANGER", OUR_TITLE, 3), (PEER_TITLE, "OTHER", 7)], ids=["calling", "called"]
)
async def test_an_unknown_title_is_rejected_with_its_reason(
    listener: Listener, calling: str, called: str, reason: int
) -> None:
    peer = await RawPeer.connect(listener.port)
    await peer.send(request(calling=calling, called=called))
    assert await peer.receive() == AssociateReject(1, 1, reason)
    await peer.close()


async def test_a_known_title_from_elsewhere_is_rejected(services: Services, listener: Listener) -> None:
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("FAR", network="192.0.2.0/24"))
        await add_peer(tx, NewPeer("NEAR", network="127.0.0.1"))
    for title, expected in (("FAR", AssociateReject), ("NEAR", AssociateAccept)):
        peer = await RawPeer.connect(listener.port)
        await peer.send(request(calling=title))
        assert isinstance(await peer.receive(), expected)
        await peer.close()


async def test_a_removed_peer_is_rejected_from_then_on(services: Services, listener: Listener) -> None:
    async with services.db.write(SYSTEM) as tx:
        await remove_peer(tx, PEER_TITLE)
    peer = await RawPeer.connect(listener.port)
    await peer.send(request())
    assert await peer.receive() == AssociateReject(1, 1, 3)
    await peer.close()


async def test_open_mode_lets_anyone_in(services: Services) -> None:
    async with listening(services, open=True) as listener:
        peer = await RawPeer.connect(listener.port)
        await peer.send(request(calling="ANYBODY"))
        assert isinstance(await peer.receive(), AssociateAccept)
        await peer.send(encode(ReleaseRequest()))
        assert await peer.receive() == ReleaseReply()
        await peer.close()


async def test_contexts_and_roles_are_negotiated_one_by_one(listener: Listener) -> None:
    peer = await RawPeer.connect(listener.port)
    jpeg = "1.2.840.10008.1.2.4.70"
    await peer.send(
        request(
            ProposedContext(1, CT, (jpeg, IMPLICIT)),
            ProposedContext(3, CT, (jpeg,)),
            ProposedContext(5, CT, ("1.2.3.4",)),
            ProposedContext(7, "1.2.3.4.5", (IMPLICIT,)),
            ProposedContext(9, "1.2.840.10008.1.1", (jpeg,)),
            max_length=16384,
            window=(0, 0),
            roles=(Role(CT, True, True), Role("1.2.840.10008.1.1", True, True)),
        )
    )
    accept = await peer.receive()
    assert isinstance(accept, AssociateAccept)
    assert [(c.id, c.result) for c in accept.contexts] == [(1, 0), (3, 0), (5, 4), (7, 3), (9, 4)]
    assert [c.transfer_syntax for c in accept.contexts[:2]] == [IMPLICIT, jpeg]
    assert accept.user.roles == (Role(CT, True, True), Role("1.2.840.10008.1.1", True, False))
    assert accept.user.window == (16, 1)
    await peer.close()


async def test_too_many_associations_are_told_to_try_again(services: Services) -> None:
    async with listening(services, associations=3, associations_for_peer=2) as listener:
        async with services.db.write(SYSTEM) as tx:
            for title in ("P1", "P2"):
                await add_peer(tx, NewPeer(title))
        answers: list[Pdu | None] = []
        peers: list[RawPeer] = []
        for title in ("P1", "P1", "P1", "P2", "P2"):
            peer = await RawPeer.connect(listener.port)
            await peer.send(request(calling=title))
            answers.append(await peer.receive())
            peers.append(peer)
        busy = AssociateReject(2, 3, 2)
        assert [type(a) is AssociateAccept for a in answers] == [True, True, False, True, False]
        assert answers[2] == answers[4] == busy
        await peers[0].send(encode(ReleaseRequest()))
        assert await peers[0].receive() == ReleaseReply()
        for peer in peers:
            await peer.close()


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BxI", 1, 0xFFFFFFFF),
        encode(ReleaseRequest()),
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["http", "four-gigabytes", "release-first", "tls"],
)
async def test_what_is_no_association_is_aborted(listener: Listener, bytes_sent: bytes) -> None:
    peer = await RawPeer.connect(listener.port)
    await peer.send(bytes_sent)
    assert isinstance(await peer.receive(), Abort)
    assert await peer.receive() is None


COMMAND_ECHO = bytes.fromhex(
    "00000000040000003800000000000200120000"
)  # cut off on purpose: the beginning of a command set


@pytest.mark.parametrize(
    "message",
    [
        data_head(1, 4, is_command=False, is_last=True) + b"abcd",
        data_head(3, 4, is_command=True, is_last=True) + b"abcd",
        data_head(1, len(COMMAND_ECHO), is_command=True, is_last=True) + COMMAND_ECHO,
        struct.pack(">BxI", 4, 6) + struct.pack(">IBB", 0xFFFFFFF0, 1, 3),
        request(),
    ],
    ids=["data-without-command", "unknown-context", "cut-command", "fragment-beyond-pdu", "associate-again"],
)
async def test_a_broken_message_is_aborted(listener: Listener, message: bytes) -> None:
    peer = await RawPeer.connect(listener.port)
    await peer.send(request())
    assert isinstance(await peer.receive(), AssociateAccept)
    await peer.send(message)
    assert isinstance(await peer.receive(), Abort)
    assert await peer.receive() is None


async def test_deadlines_end_what_does_not_go_on(services: Services) -> None:
    short = Deadlines(artim_s=0.2, pdu_s=0.2, idle_s=0.2, send_s=0.2)
    async with listening(services, deadlines=short) as listener:
        silent, half, idle, stuck = [await RawPeer.connect(listener.port) for _ in range(4)]
        await half.send(request()[:40])
        for peer in (idle, stuck):
            await peer.send(request())
            assert isinstance(await peer.receive(), AssociateAccept)
        await stuck.send(data_head(1, 400, is_command=True, is_last=True) + b"x")
        began = time.monotonic()
        for peer in (silent, half, idle, stuck):
            assert isinstance(await peer.receive(), Abort)
            assert await peer.receive() is None
        assert time.monotonic() - began < 10


async def test_a_stop_lets_go_of_idle_peers(services: Services) -> None:
    async with listening(services) as listener:
        peer = await RawPeer.connect(listener.port)
        await peer.send(request())
        assert isinstance(await peer.receive(), AssociateAccept)
    assert isinstance(await peer.receive(), Abort)
