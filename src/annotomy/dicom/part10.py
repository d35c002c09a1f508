"""The frame of a DICOM file (PS3.10 7.1): preamble and file meta information in front of a data set that is kept as it came.

What is written here depends on the instance alone, never on who sent it or when: the same data set gives the same file.
"""

import struct

IMPLEMENTATION_CLASS_UID = "2.25.333605283697618021476460416957476686718"
IMPLEMENTATION_VERSION_NAME = "ANNOTOMY"

_PREFIX = b"\0" * 128 + b"DICM"
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
MAX_META_BYTES = 1 << 16
"""File meta information is some hundred bytes; private information (0002,0102) may add to it."""


class NotPart10(ValueError):
    """The bytes do not begin as a DICOM file does."""


def file_head(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Everything of a file that comes before its data set."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", _uid(sop_class_uid)),
            _element(0x0003, b"UI", _uid(sop_instance_uid)),
            _element(0x0010, b"UI", _uid(transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )
    return b"".join((_PREFIX, _element(0x0000, b"UL", struct.pack("<I", len(elements))), elements))


def data_set_start(head: bytes) -> int:
    """Where the data set begins, told by walking the elements of group 2. Raises NotPart10.

    `head` is the beginning of the file, MAX_META_BYTES of it at least where the file is that long.
    """
    if head[128:132] != b"DICM":
        raise NotPart10("no preamble")
    at = 132
    while at + 8 <= len(head) and head[at : at + 2] == b"\x02\x00":
        if head[at + 4 : at + 6] in _LONG_VRS:
            if at + 12 > len(head):
                break
            at += 12 + struct.unpack_from("<I", head, at + 8)[0]
        else:
            at += 8 + struct.unpack_from("<H", head, at + 6)[0]
    if at > len(head) or (at + 8 > len(head) >= MAX_META_BYTES):
        raise NotPart10("the file meta information does not end")
    return at


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2) if vr in (b"UI", b"OB") else b" " * (len(value) % 2)
    form = "<HH2sHI" if vr in _LONG_VRS else "<HH2sH"
    head = (
        struct.pack(form, 2, element, vr, 0, len(value))
        if vr in _LONG_VRS
        else struct.pack(form, 2, element, vr, len(value))
    )
    return head + value


def _uid(text: str) -> bytes:
    return text.encode("ascii")
