"""Command sets and identifiers are pure: what is written is read, and garbage is refused without a crash."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from annotomy.dimse.command import CommandError, E, decode_command, encode_command, has_data_set, response_to
from annotomy.dimse.dialogue import Message
from annotomy.dimse.identifiers import read_identifier, write_data_set
from annotomy.dimse.incoming_data import PIECE_COST_BYTES, IncomingData, MemoryBudget, remove_abandoned
from annotomy.dimse.negotiation import EXPLICIT, IMPLICIT, STUDY_ROOT_FIND, AcceptedContext, is_kept_syntax, is_storage
from annotomy.dimse.status import Status
from annotomy.errors import BadRequest

uids = st.from_regex(r"[0-2]\.[0-9]{1,20}\.[0-9]{1,20}", fullmatch=True)
words = st.integers(0, 65535)
commands = st.fixed_dictionaries(
    {E.COMMAND_FIELD: words, E.DATA_SET_TYPE: words},
    optional={
        E.MESSAGE_ID: words, E.STATUS: words, E.AFFECTED_SOP_CLASS_UID: uids, E.AFFECTED_SOP_INSTANCE_UID: uids,
        E.MOVE_DESTINATION: st.from_regex(r"[A-Z0-9]{1,16}", fullmatch=True), E.REMAINING: words,
    },
)  # fmt: skip


@given(commands)
def test_a_command_that_is_written_is_read(command: dict[int, Any]) -> None:
    decoded = decode_command(encode_command(command))
    del decoded[E.GROUP_LENGTH]
    assert decoded == command


def cut(command: dict[int, Any], length: int) -> bytes:
    return encode_command(command)[:length]


@given(st.binary(max_size=300) | st.builds(cut, commands, st.integers(0, 200)))
def test_garbage_is_no_command_and_no_crash(garbage: bytes) -> None:
    with contextlib.suppress(CommandError):
        has_data_set(decode_command(garbage))


def test_a_response_names_what_it_answers() -> None:
    request: dict[int, Any] = {E.COMMAND_FIELD: 1, E.MESSAGE_ID: 7, E.AFFECTED_SOP_CLASS_UID: "1.2", E.DATA_SET_TYPE: 1}
    response = decode_command(encode_command(response_to(request, Status.OUT_OF_RESOURCES, comment="x" * 90)))
    assert (response[E.COMMAND_FIELD], response[E.MESSAGE_ID_RESPONDED_TO]) == (0x8001, 7)
    assert (response[E.STATUS], response[E.ERROR_COMMENT]) == (0xA700, "x" * 64)


def message(data: bytes, syntax: str = IMPLICIT) -> Message:
    data_set = IncomingData(MemoryBudget(), head=b"", limit_bytes=1 << 20, folder=None)
    data_set.add(memoryview(data))
    return Message(AcceptedContext(1, STUDY_ROOT_FIND, syntax), {}, data_set)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_an_identifier_is_read_as_it_was_written(syntax: str) -> None:
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel, asked.PatientName, asked.StudyDate = "STUDY", "홍*", "20250101-"
    asked.StudyInstanceUID = ["1.2", "1.3"]
    asked.ReferencedStudySequence = []
    read = read_identifier(message(write_data_set(asked, syntax), syntax))
    assert read.level == "STUDY"
    assert read.keys == {
        "PatientName": "홍*", "StudyDate": "20250101-", "StudyInstanceUID": "1.2\\1.3", "ReferencedStudySequence": "",
    }  # fmt: skip


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from([IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.2"]))
def test_garbage_is_no_identifier_and_no_crash(garbage: bytes, syntax: str) -> None:
    with contextlib.suppress(BadRequest):
        read_identifier(message(garbage, syntax))


@settings(deadline=None)
@given(st.data())
def test_a_damaged_identifier_is_no_crash(data: st.DataObject) -> None:
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.PatientName, asked.StudyDate, asked.SeriesNumber = "STUDY", "A*", "20250101-", 1
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2"
    asked.ReferencedStudySequence = [item]
    encoded = bytearray(write_data_set(asked, EXPLICIT))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadRequest):
        read_identifier(message(bytes(encoded), EXPLICIT))


@pytest.mark.parametrize("vr", [b"SL", b"US", b"FL"])
def test_a_number_of_five_bytes_is_refused(vr: bytes) -> None:
    encoded = b"\x08\x00\x52\x00CS\x06\x00STUDY " + b"\x70\x00\x52\x00" + vr + b"\x05\x00abcde"
    with pytest.raises(BadRequest):
        read_identifier(message(encoded, EXPLICIT))


def test_sequences_a_thousand_deep_are_refused() -> None:
    deep = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(BadRequest):
        read_identifier(message(deep * 1000, EXPLICIT))


def test_every_storage_class_and_syntax_is_known_by_rule() -> None:
    assert is_storage("1.2.840.10008.5.1.4.1.1.2")
    assert is_storage("1.2.840.10008.5.1.4.1.1.66.4")
    assert is_storage("1.3.12.2.1107.5.9.1")
    assert not is_storage("1.2.840.10008.1.20.1")
    assert not is_storage("1.2.840.10008.5.1.4.1.2.2.1")
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.50"):
        assert is_kept_syntax(syntax)
    assert not is_kept_syntax("1.2.840.10008.1.2.6.1")
    assert not is_kept_syntax("1.2.3")


# -- data sets while they arrive --------------------------------------------------------------------------------------


def test_what_the_budget_does_not_cover_goes_to_a_file(tmp_path: Path) -> None:
    async def work() -> None:
        budget = MemoryBudget(1000 + PIECE_COST_BYTES)
        first = IncomingData(budget, head=b"head", limit_bytes=10_000, folder=tmp_path)
        second = IncomingData(budget, head=b"head", limit_bytes=10_000, folder=tmp_path)
        assert not first.add(memoryview(b"a" * 900))
        assert second.add(memoryview(b"b" * 900))
        await second.flush()
        second.add(memoryview(b"c" * 10))
        await second.finish()
        assert first.data() == b"head" + b"a" * 900
        assert second.path is not None
        assert second.path.read_bytes() == b"head" + b"b" * 900 + b"c" * 10
        assert remove_abandoned(tmp_path) == 0, "a file in use is not abandoned"
        first.discard()
        second.discard()
        assert budget.take(1000 + PIECE_COST_BYTES), "all memory came back"
        assert list(tmp_path.iterdir()) == []

    asyncio.run(work())


def test_a_data_set_in_single_bytes_costs_no_more_memory_than_one_in_large_pieces(tmp_path: Path) -> None:
    async def work() -> None:
        data = IncomingData(MemoryBudget(100 * PIECE_COST_BYTES), head=b"", limit_bytes=1 << 20, folder=tmp_path)
        flushed = False
        for _ in range(200):
            assert not data.add(memoryview(b""))
            if data.add(memoryview(b"x")):
                await data.flush()
                flushed = True
        await data.finish()
        assert flushed
        assert data.path is not None
        assert data.path.read_bytes() == b"x" * 200
        data.discard()

    asyncio.run(work())


def test_what_is_too_large_is_counted_and_dropped(tmp_path: Path) -> None:
    async def work() -> None:
        budget = MemoryBudget(1 << 20)
        data = IncomingData(budget, head=b"", limit_bytes=1000, folder=tmp_path)
        for _ in range(100):
            if data.add(memoryview(b"x" * 100)):
                await data.flush()
        await data.finish()
        assert data.too_large
        assert data.size == 10_000
        data.discard()
        assert budget.take(1 << 20)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(work())


def test_a_folder_that_cannot_be_written_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    async def work() -> None:
        data = IncomingData(MemoryBudget(10), head=b"", limit_bytes=1 << 20, folder=tmp_path / "missing")
        assert data.add(memoryview(b"x" * 100))
        await data.flush()
        data.add(memoryview(b"x" * 100))
        await data.finish()
        assert isinstance(data.failure, FileNotFoundError)
        data.discard()

    asyncio.run(work())
