"""The PDU codec is pure: what it writes it reads, in whatever pieces it comes, and garbage neither crashes it nor grows it."""

import contextlib
import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from annotomy.dimse.pdu import (
    MAX_DATA_BYTES,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    Data,
    Pdu,
    PduDecoder,
    PduError,
    ProposedContext,
    ReleaseReply,
    ReleaseRequest,
    Role,
    UserInformation,
    data_head,
    encode,
)

uids = st.from_regex(r"[0-2]\.[0-9]{1,20}\.[0-9]{1,20}", fullmatch=True)
titles = st.text("ABCXYZ 0189_-", min_size=1, max_size=16).map(str.strip).filter(bool)
users = st.builds(
    UserInformation,
    max_length=st.integers(0, 2**32 - 1),
    implementation_class_uid=uids,
    implementation_version=titles,
    window=st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    roles=st.lists(st.builds(Role, uids, st.booleans(), st.booleans()), max_size=4).map(tuple),
)
odd_ids = st.integers(0, 127).map(lambda n: 2 * n + 1)
requests = st.builds(
    AssociateRequest,
    titles,
    titles,
    st.lists(st.builds(ProposedContext, odd_ids, uids, st.lists(uids, min_size=1, max_size=4).map(tuple)), max_size=5).map(tuple),
    users,
)  # fmt: skip
accepts = st.builds(
    AssociateAccept,
    titles,
    titles,
    st.lists(st.builds(ContextResult, odd_ids, st.integers(0, 4), uids), max_size=5).map(tuple),
    users,
)
octets = st.integers(0, 255)
others = (
    st.builds(AssociateReject, octets, octets, octets)
    | st.builds(Abort, octets, octets)
    | st.just(ReleaseRequest())
    | st.just(ReleaseReply())
)


def read_all(pieces: list[bytes]) -> list[Pdu]:
    decoder = PduDecoder()
    return [pdu for piece in pieces for pdu in decoder.feed(piece)]


@given(requests | accepts | others)
def test_what_is_written_is_read(pdu: Pdu) -> None:
    assert not isinstance(pdu, Data)
    assert read_all([encode(pdu)]) == [pdu]


@given(st.lists(requests | others, min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=8))
def test_pieces_may_end_anywhere(pdus: list[Pdu], cuts: list[int]) -> None:
    whole = b"".join(encode(pdu) for pdu in pdus if not isinstance(pdu, Data))
    ends = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    assert read_all([whole[a:b] for a, b in itertools.pairwise(ends)]) == pdus


def test_a_request_and_data_may_come_byte_by_byte() -> None:
    payload = bytes(range(256)) * 4
    request = AssociateRequest("A", "B", (ProposedContext(1, "1.2", ("1.2.3",)),))
    data = data_head(1, len(payload), is_command=False, is_last=True) + payload
    got = read_all([bytes([octet]) for octet in encode(request) + data + encode(ReleaseRequest())])
    assert got[0] == request
    assert isinstance(got[1], Data)
    assert bytes(got[1].fragments[0].data) == payload
    assert got[2] == ReleaseRequest()


def framed(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


@given(st.binary(max_size=4000) | st.builds(framed, st.integers(1, 7), st.binary(max_size=400)))
def test_garbage_is_refused_or_read_and_never_crashes(garbage: bytes) -> None:
    with contextlib.suppress(PduError):
        read_all([garbage])


@given(requests | accepts, st.data())
def test_a_damaged_association_is_refused_or_read_and_never_crashes(
    pdu: AssociateRequest | AssociateAccept, data: st.DataObject
) -> None:
    damaged = bytearray(encode(pdu))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(6, len(damaged) - 1))] = data.draw(octets)
    with contextlib.suppress(PduError):
        read_all([bytes(damaged)])


@pytest.mark.parametrize("kind", range(256))
def test_four_gigabytes_are_refused_at_the_sixth_byte(kind: int) -> None:
    decoder = PduDecoder()
    tracemalloc.start()
    assert list(decoder.feed(struct.pack(">BxI", kind, 0xFFFFFFFF)[:5])) == []
    with pytest.raises(PduError):
        list(decoder.feed(b"\xff"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_data_longer_than_announced_is_refused() -> None:
    with pytest.raises(PduError):
        read_all([struct.pack(">BxI", 4, MAX_DATA_BYTES + 7)])
    assert read_all([struct.pack(">BxI", 4, MAX_DATA_BYTES + 6)]) == []


def test_pynetdicom_reads_what_we_write() -> None:
    user = UserInformation(16384, "1.2.3", "OURS", (4, 1), (Role("1.2.840.10008.5.1.4.1.1.2", True, True),))
    request = AssociateRequest(
        "CALLED", "CALLING", (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),), user
    )
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(encode(request))
    assert theirs.called_ae_title == "CALLED"
    assert theirs.presentation_context[0].abstract_syntax == "1.2.840.10008.1.1"
    assert theirs.user_information is not None
    assert theirs.user_information.maximum_length == 16384
    assert theirs.encode() == encode(request)
    accept = AssociateAccept("CALLED", "CALLING", (ContextResult(1, 0, "1.2.840.10008.1.2"),), user)
    accepted = A_ASSOCIATE_AC()
    accepted.decode(encode(accept))
    assert accepted.presentation_context[0].transfer_syntax == "1.2.840.10008.1.2"
