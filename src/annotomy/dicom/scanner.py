"""The header scanner: the structure of a DICOM file (PS3.5 section 7, PS3.10 section 7), checked and bounded.

It reads untrusted bytes and decides what may be read at all. Nesting is bounded before anything recurses. It finds the file meta information, the transfer syntax,
the raw values of the attributes that are asked for, and where the pixel data begins. Values are not interpreted here.
An error says what is wrong and at which tag, and never holds a value of the file.

Where writers are known to break the rules, it reads as pydicom does (which the tests compare): a transfer syntax that
lies about implicit VR, single elements without VR, items in implicit VR, wrong group lengths. What pydicom reads by
guessing where bytes are missing is refused.
"""

import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from mmap import mmap
from struct import Struct
from typing import Final

from pydicom.datadict import (
    DicomDictionary,  # pyright: ignore[reportPrivateImportUsage] - the table itself: a look-up call takes too long here
    keyword_for_tag,
)
from pydicom.uid import UID_dictionary  # pyright: ignore[reportPrivateImportUsage] - as above

MAX_DEPTH: Final = 32
"""Sequences within sequences. Structured reports reach about ten; readers that recurse break at some hundred."""
MAX_ELEMENTS: Final = 200_000
"""Elements and items of one header, nested ones counted. Enhanced multi-frame headers of 10,000 frames stay below."""
MAX_ELEMENT_BYTES: Final = 64 << 20
"""One value that is not pixel data. Encapsulated documents and waveforms stay below."""
MAX_HEADER_BYTES: Final = 128 << 20
"""Everything before the pixel data; it is kept in the database, compressed."""
MAX_META_BYTES: Final = 64 << 10
"""The file meta information is some hundred bytes."""
MAX_INFLATE_RATIO: Final = 100
"""A deflated file grows by 2 to 10 times; zlib reaches 1,000 only on constant bytes."""
INFLATE_FLOOR_BYTES: Final = 1 << 20
"""Up to this size a deflated file may grow by any ratio: short headers with padding do."""
MAX_INFLATED_BYTES: Final = 256 << 20
"""A deflated file is inflated in memory, whole; images of this size are not sent deflated."""

Buffer = bytes | mmap

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
TRANSFER_SYNTAXES: Final = frozenset(uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax")
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
CHARACTER_SET = 0x00080005

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UID = re.compile(rb"[0-9.]{1,64}")
_CHARACTER_SETS = re.compile(rb"[ -~]{0,1024}\0?")
"""Defined terms are printable ASCII (PS3.3 C.12.1.1.2); readers choke on anything else before they read a single text."""
# PS3.5 7.1.2: these have a 32-bit length after two reserved bytes.
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_VRS = {vr: vr.decode() for vr in _LONG_VRS | _SHORT_VRS}
_VRS_OF_SHORT = {vr: vr.decode() for vr in _SHORT_VRS}
_SEQUENCE_TAGS = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_SMALLEST_LEVEL_BYTES = 16
"""An element header and an item header: a value shorter than this many bytes for each level left cannot nest too deeply."""


class ScanError(ValueError):
    """The bytes are no DICOM file that is taken in. The text says why and holds no value."""


@dataclass(frozen=True, slots=True)
class Element:
    """A value as it lies in the buffer. `vr` is None where the file does not say it."""

    tag: int
    vr: str | None
    value_at: int
    length: int
    """0xFFFFFFFF: undefined, only of pixel data."""


@dataclass(slots=True)
class Scan:
    """What a scan found. Offsets are those of `data`: the file, or what a deflated file inflates to, meta included."""

    data: Buffer
    transfer_syntax_uid: str
    implicit: bool
    little_endian: bool
    deflated: bool
    meta_end: int
    """Where the file meta information ends; the same in a deflated file and in what it inflates to."""
    header_end: int
    """Where the pixel data element begins, or the end of the file."""
    pixels: Element | None
    elements: dict[int, Element] = field(default_factory=dict[int, Element])

    def value(self, tag: int) -> bytes | None:
        found = self.elements.get(tag)
        return None if found is None else self.data[found.value_at : found.value_at + found.length]


def scan(data: Buffer, wanted: Collection[int]) -> Scan:
    """Raises ScanError. Time and memory are bounded by the limits above, whatever the bytes are."""
    if data[128:132] != b"DICM":
        raise ScanError("The file has no DICOM preamble and prefix.")
    syntax, meta_end = _file_meta(data)
    if syntax not in TRANSFER_SYNTAXES:
        raise ScanError("The file's transfer syntax is not known.")
    if syntax == DEFLATED:
        data = bytes(data[:meta_end]) + inflate(data[meta_end:])
    found = Scan(
        data=data,
        transfer_syntax_uid=syntax,
        implicit=False,
        little_endian=syntax != EXPLICIT_BIG,
        deflated=syntax == DEFLATED,
        meta_end=meta_end,
        header_end=len(data),
        pixels=None,
    )
    if len(data) - meta_end >= 6:
        # The first element tells how the data set is really written, whatever its transfer syntax says.
        found.implicit = not _is_vr(data[meta_end + 4 : meta_end + 6])
    else:
        found.implicit = syntax == IMPLICIT_LITTLE
    _Walk(found, frozenset(wanted) | {CHARACTER_SET}).header()
    if found.header_end > MAX_HEADER_BYTES:
        raise ScanError(f"The header is larger than {MAX_HEADER_BYTES} bytes.")
    return found


Span = tuple[int, str | None, int, int, int]
"""Tag, VR (None where the file does not say it), and where the element, its value and what follows begin."""


def header_spans(data: Buffer) -> list[Span]:
    """The elements of a data set up to its pixel data, sequences as one each, in the order of the file.

    For headers that were kept. Raises ScanError, also for what is deflated or big endian.
    """
    syntax, meta_end = _file_meta(data)
    if syntax in (DEFLATED, EXPLICIT_BIG):
        raise ScanError("The header is not in little endian as it lies.")
    implicit = len(data) - meta_end < 6 or not _is_vr(data[meta_end + 4 : meta_end + 6])
    found = Scan(data, syntax, implicit, True, False, meta_end, len(data), None)
    return _Walk(found, frozenset()).spans()


def inflate(packed: bytes) -> bytes:
    """A raw deflate stream (PS3.5 A.5), inflated within the limits. Raises ScanError."""
    limit = min(MAX_INFLATED_BYTES, max(INFLATE_FLOOR_BYTES, len(packed) * MAX_INFLATE_RATIO))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(packed, limit)
        if not inflater.eof and (len(plain) >= limit or inflater.unconsumed_tail):
            raise ScanError(f"The deflated data set grows beyond {limit} bytes.")
    except zlib.error as error:
        raise ScanError("The deflated data set is damaged.") from error
    if not inflater.eof:
        raise ScanError("The deflated data set is cut off.")
    return plain


def is_uid(value: bytes) -> bool:
    """PS3.5 9.1, as far as paths, URLs and queries need it: digits and dots, at most 64."""
    return _UID.fullmatch(value.rstrip(b"\0 ")) is not None


def _is_vr(two: bytes) -> bool:
    return len(two) == 2 and 0x40 < two[0] < 0x5B and 0x40 < two[1] < 0x5B


def _file_meta(data: Buffer) -> tuple[str, int]:
    """The transfer syntax, and where the elements of group 2 end: always explicit little endian (PS3.10 7.1).

    The group length is not believed: the elements are walked.
    """
    at, size, syntax = 132, len(data), b""
    while at + 8 <= size and data[at : at + 2] == b"\x02\x00":
        vr = data[at + 4 : at + 6]
        if vr in _LONG_VRS:
            length, value_at = int.from_bytes(data[at + 8 : at + 12], "little"), at + 12
        elif vr in _SHORT_VRS:
            length, value_at = int.from_bytes(data[at + 6 : at + 8], "little"), at + 8
        else:
            raise ScanError("The file meta information is not in explicit VR.")
        if value_at + length > size:
            raise ScanError("The file meta information is cut off.")
        if data[at + 2 : at + 4] == b"\x10\x00":
            syntax = data[value_at : value_at + length]
        at = value_at + length
        if at > MAX_META_BYTES:
            raise ScanError("The file meta information is too long.")
    if not syntax:
        raise ScanError("The file names no transfer syntax.")
    if not is_uid(syntax):
        raise ScanError("The file's transfer syntax is no UID.")
    return syntax.rstrip(b"\0 ").decode("ascii"), at


class _Walk:
    """One pass over the elements; open sequences and items are a list of ours, not the call stack."""

    def __init__(self, found: Scan, wanted: frozenset[int]) -> None:
        order = "<" if found.little_endian else ">"
        self.found = found
        self.data = found.data
        self.wanted = wanted
        self.count = 0
        self._explicit = Struct(f"{order}HH2sH").unpack_from
        self._implicit = Struct(f"{order}HHI").unpack_from
        self._long = Struct(f"{order}I").unpack_from
        self._sequence_end = Struct(f"{order}HHI").pack(_SEQUENCE_END >> 16, _SEQUENCE_END & 0xFFFF, 0)[:4]

    def header(self) -> None:
        """The elements of the data set up to its pixel data."""
        found, wanted = self.found, self.wanted
        at, size = found.meta_end, len(self.data)
        if self.data[at : at + 2] == b"\0\0" and at + 8 <= size:
            raise ScanError("The file holds elements of a DIMSE command.")
        while at < size:
            if not found.implicit:
                at = self._plain_run(at, size)
                if at == size:
                    return
            tag, vr, length, value_at = self._element(at, size, found.implicit)
            if tag in PIXEL_TAGS:
                found.pixels, found.header_end = Element(tag, vr, value_at, length), at
                return
            if tag >> 16 == 0xFFFE:
                raise ScanError("An item or delimiter stands outside of a sequence.")
            end = self._end_of_value(tag, vr, length, value_at, size, found.implicit, 0)
            if tag in wanted and length != _UNDEFINED:
                found.elements[tag] = Element(tag, vr, value_at, length)
            at = end

    def _plain_run(self, at: int, size: int) -> int:
        """Past the elements with short values in explicit VR, in few steps each: they are nearly all of a header.

        Stops at whatever is not plain, which `header` then takes on.
        """
        data, explicit, short, wanted = self.data, self._explicit, _SHORT_VRS, self.wanted
        groups = {tag >> 16 for tag in wanted}
        last, count = size - 8, self.count
        while at <= last and count < MAX_ELEMENTS:
            group, number, code, length = explicit(data, at)
            end = at + 8 + length
            if code not in short or group >= 0x7FE0 or end > size:
                break
            if group in groups:
                tag = group << 16 | number
                if tag in wanted:
                    if tag == CHARACTER_SET:
                        self._check_character_set(_VRS[code], data[at + 8 : end])
                    self.found.elements[tag] = Element(tag, _VRS[code], at + 8, length)
            at = end
            count += 1
        self.count = count
        return at

    def spans(self) -> list[Span]:
        data, explicit, short, implicit = self.data, self._explicit, _VRS_OF_SHORT, self.found.implicit
        at, size = self.found.meta_end, len(data)
        found: list[Span] = []
        while at < size:
            if not implicit and at + 8 <= size:
                group, number, code, length = explicit(data, at)
                vr, end = short.get(code), at + 8 + length
                if vr is not None and group < 0x7FE0 and end <= size:
                    found.append((group << 16 | number, vr, at, at + 8, end))
                    at = end
                    continue
            tag, vr, length, value_at = self._element(at, size, implicit)
            if tag in PIXEL_TAGS:
                break
            if tag >> 16 == 0xFFFE:
                raise ScanError("An item or delimiter stands outside of a sequence.")
            end = self._end_of_value(tag, vr, length, value_at, size, implicit, 0)
            found.append((tag, vr, at, value_at, end))
            at = end
        return found

    def _element(self, at: int, end: int, implicit: bool) -> tuple[int, str | None, int, int]:
        """(tag, VR, length, where the value begins) of the element at `at`, whose header lies before `end`."""
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise _OverLimit(f"The header has more than {MAX_ELEMENTS} elements.")
        if at + 8 > end:
            raise ScanError("The file ends inside an element.")
        if implicit:
            group, number, length = self._implicit(self.data, at)
            return group << 16 | number, None, length, at + 8
        group, number, code, length = self._explicit(self.data, at)
        tag = group << 16 | number
        if code in _SHORT_VRS:
            return tag, _VRS[code], length, at + 8
        if code in _LONG_VRS:
            if at + 12 > end:
                raise ScanError("The file ends inside an element.")
            return tag, _VRS[code], self._long(self.data, at + 8)[0], at + 12
        if group == 0xFFFE or not b"AA" <= code <= b"ZZ":  # no VR: this one element is written as implicit
            return tag, None, self._long(self.data, at + 4)[0], at + 8
        return tag, code.decode("latin-1"), length, at + 8

    def _end_of_value(
        self, tag: int, vr: str | None, length: int, value_at: int, limit: int, implicit: bool, depth: int
    ) -> int:
        """Where the element ends; `limit` is the end of what holds it."""
        if length == _UNDEFINED:
            if tag == CHARACTER_SET:
                raise ScanError("The character set is none.")
            if self._holds_items(tag, vr, value_at):
                return self._skip_items(value_at, None, limit, implicit, depth)
            return self._after_delimiter(tag, value_at, limit)
        if value_at + length > limit:
            raise ScanError(f"The value of {_name(tag)} reaches beyond what holds it.")
        if length > MAX_ELEMENT_BYTES:
            raise ScanError(f"The value of {_name(tag)} is larger than {MAX_ELEMENT_BYTES} bytes.")
        end = value_at + length
        if tag == CHARACTER_SET:
            self._check_character_set(vr, self.data[value_at:end])
        if length >= _SMALLEST_LEVEL_BYTES * (MAX_DEPTH - depth) and vr in ("SQ", "UN", None):
            self._check_depth(value_at, end, implicit, depth)
        return end

    def _check_character_set(self, vr: str | None, value: bytes) -> None:
        if vr not in ("CS", "UN", None) or not _CHARACTER_SETS.fullmatch(value):
            raise ScanError("The character set is none.")

    def _holds_items(self, tag: int, vr: str | None, value_at: int) -> bool:
        """Of a value of undefined length. Without a VR the dictionary tells; of what it does not know, the first bytes."""
        if vr is not None:
            return vr in ("SQ", "UN")  # PS3.5 6.2.2
        return tag in _SEQUENCE_TAGS or (tag not in DicomDictionary and self._tag(value_at) == _ITEM)

    def _tag(self, at: int) -> int:
        if at + 8 > len(self.data):
            return 0
        group, number, _ = self._implicit(self.data, at)
        return group << 16 | number

    def _after_delimiter(self, tag: int, value_at: int, limit: int) -> int:
        """The end of a value of undefined length that is no sequence: fragments up to the sequence delimiter."""
        at = self.data.find(self._sequence_end, value_at, limit)
        if at < 0 or at + 8 > limit:
            raise ScanError(f"The value of {_name(tag)} has no end.")
        if at - value_at > MAX_ELEMENT_BYTES:
            raise ScanError(f"The value of {_name(tag)} is larger than {MAX_ELEMENT_BYTES} bytes.")
        return at + 8

    def _check_depth(self, value_at: int, end: int, implicit: bool, depth: int) -> None:
        """A value of known length that is a sequence or that readers may take for one: only its depth matters here.

        Its length is enough to go on, so what is wrong inside of it is left to who reads it.
        """
        if self._tag(value_at) != _ITEM:
            return
        try:
            self._skip_items(value_at, end, end, implicit, depth)
        except _OverLimit:
            raise
        except ScanError:
            return

    def _skip_items(self, at: int, end: int | None, limit: int, implicit: bool, depth: int) -> int:
        """Past the items of a sequence. `end` is None for an undefined length; nothing may reach beyond `limit`.

        `open_levels` holds what is being read, the innermost last: (is it a sequence, its end or None, its limit, implicit).
        """
        base = depth
        open_levels: list[tuple[bool, int | None, int, bool]] = [(True, end, limit, implicit)]
        sequences = 1
        while True:
            in_sequence, end, limit, implicit = open_levels[-1]
            if end is not None and at >= end:
                open_levels.pop()
                sequences -= in_sequence
                if not open_levels:
                    return at
                continue
            if in_sequence:
                at, item = self._open_item(at, limit, implicit)
                if item is None:
                    if end is not None:
                        at = end  # a delimiter in a sequence of defined length: readers stop here
                    open_levels.pop()
                    sequences -= 1
                    if not open_levels:
                        return at
                else:
                    open_levels.append(item)
                continue
            tag, vr, length, value_at = self._element(at, limit, implicit)
            if tag == _ITEM_END:
                at = value_at if end is None else end
                open_levels.pop()
            elif tag >> 16 == 0xFFFE:
                raise ScanError("An item or delimiter stands where an element belongs.")
            elif length == _UNDEFINED and tag != CHARACTER_SET and self._holds_items(tag, vr, value_at):
                at = value_at
                open_levels.append((True, None, limit, implicit))
                sequences += 1
            elif length != _UNDEFINED and (vr == "SQ" or (vr is None and tag in _SEQUENCE_TAGS)):
                if value_at + length > limit:
                    raise ScanError(f"The value of {_name(tag)} reaches beyond what holds it.")
                at = value_at
                open_levels.append((True, value_at + length, value_at + length, implicit))
                sequences += 1
            else:
                at = self._end_of_value(tag, vr, length, value_at, limit, implicit, base + sequences)
            if base + sequences > MAX_DEPTH:
                raise _OverLimit(f"Sequences are nested more than {MAX_DEPTH} deep.")

    def _open_item(self, at: int, limit: int, implicit: bool) -> tuple[int, tuple[bool, int | None, int, bool] | None]:
        """Where the item's elements begin, and its level; None for the level at a sequence delimiter."""
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise _OverLimit(f"The header has more than {MAX_ELEMENTS} elements.")
        if at + 8 > limit:
            raise ScanError("A sequence ends inside an item.")
        group, number, length = self._implicit(self.data, at)
        tag, start = group << 16 | number, at + 8
        if tag == _SEQUENCE_END:
            return start, None
        if tag != _ITEM:
            raise ScanError("A sequence holds something that is no item.")
        if length != _UNDEFINED and start + length > limit:
            raise ScanError("An item reaches beyond its sequence.")
        # An item of an explicit data set may be written in implicit VR (PS3.5 6.2.2); its first element tells.
        implicit = implicit or not _is_vr(self.data[start + 4 : start + 6])
        if length == _UNDEFINED:
            return start, (False, None, limit, implicit)
        return start, (False, start + length, start + length, implicit)


class _OverLimit(ScanError):
    """Too deep or too many: refused even in a value that only looks like a sequence."""


def _name(tag: int) -> str:
    """The keyword of a standard attribute. Other tags are not told: in a damaged file they are bytes of some value."""
    return keyword_for_tag(tag) or "an element"
