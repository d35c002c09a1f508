"""DIMSE command sets: always Implicit VR Little Endian (PS3.7 6.3.1), elements of group 0000 only (PS3.7 E).

A command is a mapping from element to value; what an element holds is told by one table.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

MAX_COMMAND_BYTES = 64 << 10
"""Real ones have 100 to 200 bytes; an attribute list may add to them."""

NO_DATA_SET = 0x0101
"""Command Data Set Type of a message that has none (PS3.7 9.3)."""
WITH_DATA_SET = 0x0001


class E(IntEnum):
    """Elements of group 0000 that we read or write."""

    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ACTION_TYPE_ID = 0x1008
    REMAINING = 0x1020
    COMPLETED = 0x1021
    FAILED = 0x1022
    WARNING = 0x1023
    MOVE_ORIGINATOR_AE_TITLE = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031


class Field(IntEnum):
    """Command Field (0000,0100); a response has the highest bit set."""

    C_STORE_RQ = 0x0001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130
    C_CANCEL_RQ = 0x0FFF


RESPONSE = 0x8000

_VR = {
    **dict.fromkeys((E.AFFECTED_SOP_CLASS_UID, E.REQUESTED_SOP_CLASS_UID, E.AFFECTED_SOP_INSTANCE_UID,
                     E.REQUESTED_SOP_INSTANCE_UID), "UI"),
    **dict.fromkeys((E.MOVE_DESTINATION, E.MOVE_ORIGINATOR_AE_TITLE), "AE"),
    E.ERROR_COMMENT: "LO",
}  # fmt: skip
"""Everything else is US."""

Command = Mapping[int, Any]


class CommandError(ValueError):
    """The bytes are no command set."""


def decode_command(data: bytes | bytearray) -> dict[int, Any]:
    """Elements that are not in the table are kept as bytes. Raises CommandError, and nothing else."""
    command: dict[int, Any] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise CommandError("an element is cut off")
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise CommandError("an element is not of the command group, or reaches beyond the command")
        command[element] = _value(element, bytes(data[at : at + length]))
        at += length
    if not isinstance(command.get(E.COMMAND_FIELD), int) or not isinstance(command.get(E.DATA_SET_TYPE), int):
        raise CommandError("the command names no Command Field or no Command Data Set Type")
    return command


def _value(element: int, value: bytes) -> Any:
    if element not in _KNOWN or element == E.GROUP_LENGTH:
        return value
    vr = _VR.get(element)  # pyright: ignore[reportArgumentType]
    if vr is None:
        if len(value) != 2:
            raise CommandError("a number of the command set does not have two bytes")
        return struct.unpack("<H", value)[0]
    return value.decode("latin-1").strip("\0 ")


_KNOWN = frozenset(int(element) for element in E) - {E.OFFENDING_ELEMENT}


def encode_command(command: Command) -> bytes:
    """The whole command set with its group length."""
    parts: list[bytes] = []
    for element in sorted(command):
        value = command[element]
        if isinstance(value, int):
            encoded = struct.pack("<H", value)
        else:
            text: str = value
            encoded = text.encode("latin-1", "replace")
            if len(encoded) % 2:
                encoded += b"\0" if _VR.get(element) == "UI" else b" "  # pyright: ignore[reportArgumentType]
        parts.append(struct.pack("<HHI", 0, element, len(encoded)) + encoded)
    body = b"".join(parts)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def has_data_set(command: Command) -> bool:
    return command[E.DATA_SET_TYPE] != NO_DATA_SET


def response_to(request: Command, status: int, *, data_set: bool = False, comment: str = "") -> dict[int, Any]:
    """The response of the same kind; the caller adds what its service needs."""
    response: dict[int, Any] = {
        E.COMMAND_FIELD: request[E.COMMAND_FIELD] | RESPONSE,
        E.MESSAGE_ID_RESPONDED_TO: request.get(E.MESSAGE_ID, 0),
        E.DATA_SET_TYPE: WITH_DATA_SET if data_set else NO_DATA_SET,
        E.STATUS: status,
    }
    sop_class_uid = request.get(E.AFFECTED_SOP_CLASS_UID) or request.get(E.REQUESTED_SOP_CLASS_UID)
    sop_instance_uid = request.get(E.AFFECTED_SOP_INSTANCE_UID) or request.get(E.REQUESTED_SOP_INSTANCE_UID)
    if sop_class_uid:
        response[E.AFFECTED_SOP_CLASS_UID] = sop_class_uid
    if sop_instance_uid:
        response[E.AFFECTED_SOP_INSTANCE_UID] = sop_instance_uid
    if comment:
        response[E.ERROR_COMMENT] = comment[:64]  # LO: 64 characters (PS3.5 6.2)
    return response
