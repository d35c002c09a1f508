"""DICOM JSON (PS3.18 F) of the headers of many instances.

The slices of a series say nearly the same, so an element whose bytes were seen before is not read again. What is read is
read by pydicom (`attributes.whole_json_of`), but for plain ASCII values, which are read directly; the tests compare both
on every file that there is.
"""

import io
import re
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset

from annotomy.dicom.attributes import plain_json, whole_json_of
from annotomy.dicom.scanner import CHARACTER_SET, ScanError, Span, header_spans

BulkPath = Callable[[FileDataset, DataElement], str]
"""Where below its instance a value is retrieved that is too large to be told inline."""

_CONTEXT: Final = frozenset({CHARACTER_SET, 0x00280100, 0x00280103, 0x00283002, 0x54001004})
"""By these pydicom reads other elements: the character set, and what decides an ambiguous VR. Private creators are with them."""
_PHOTOMETRIC, _PIXELS, _SYNTAX = 0x00280004, 0x7FE00010, 0x00083002
_PLAIN_TEXT = re.compile(rb"[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])?(?:\\[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])?)*")
_PLAIN_NUMBERS: Final[dict[str, tuple[re.Pattern[bytes], Callable[[str], float]]]] = {
    "DS": (re.compile(rb"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:\\[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?)*"), float),
    "IS": (re.compile(rb"-?[0-9]{1,9}(?:\\-?[0-9]{1,9})*"), int),
}
_PLAIN_TEXTS: Final = frozenset({"CS", "LO", "SH", "DA", "TM", "UI"})
MAX_KNOWN_BYTES: Final = 32 << 20
"""Elements and their JSON that are remembered while one answer is made."""

Context = tuple[bytes, ...]


class HeaderJson:
    """For one answer: headers are given one after another."""

    def __init__(self, bulk_path: BulkPath, threshold_bytes: int) -> None:
        self._bulk_path = bulk_path
        self._threshold = threshold_bytes
        self._base = secrets.token_hex(16)  # stands for an instance's address until that is put in; no file can hold it
        self._known: dict[Context, dict[bytes, bytes]] = {}
        self._known_bytes = 0

    def encode(self, header: bytes, *, base: str, sent_as: str, half_chroma_as_rgb: bool, frames: bool) -> bytes:
        """One instance. `header` is a file that ends before its pixels, `base` the address of the instance.

        `sent_as` is the transfer syntax in which its frames go out.
        """
        pieces = self._pieces(header)
        if half_chroma_as_rgb and b'"YBR_FULL_422"' in pieces.get(_PHOTOMETRIC, b""):
            pieces[_PHOTOMETRIC] = b'"00280004":{"vr":"CS","Value":["RGB"]}'
        pieces[_SYNTAX] = _named(_SYNTAX, {"vr": "UI", "Value": [sent_as]})
        if frames:
            pieces[_PIXELS] = _named(_PIXELS, {"vr": "OW", "BulkDataURI": f"{self._base}/frames"})
        joined = b"{" + b",".join([piece for piece in pieces.values() if piece]) + b"}"
        return joined.replace(self._base.encode(), base.encode())

    def _pieces(self, header: bytes) -> dict[int, bytes]:
        """`"tag":{...}` of each element in the order of the file; empty for one that cannot be read."""
        try:
            spans = header_spans(header)
        except ScanError:  # deflated or big endian, or taken in by rules that were wider
            return self._read(header)
        context: Context = tuple(
            header[start:end]
            for tag, _, start, _, end in spans
            if tag in _CONTEXT or (tag & 0x1FF00 == 0x10000 and tag & 0xFFFF >= 0x10)
        )
        charset = b"".join(header[at:end] for tag, _, _, at, end in spans if tag == CHARACTER_SET)
        # ISO-IR 13 and 14 have a yen sign and an overline in the places of backslash and tilde.
        ascii_text = b"IR 13" not in charset and b"IR 14" not in charset
        known = self._known.setdefault(context, {})
        pieces: dict[int, bytes] = {}
        missing: list[Span] = []
        for span in spans:
            piece = known.get(header[span[2] : span[4]])
            if piece is None:
                missing.append(span)
                pieces[span[0]] = b""
            else:
                pieces[span[0]] = piece
        if len(pieces) < len(spans):
            return self._read(header)  # a tag that stands twice: what counts is for its reader to say
        whole: dict[int, bytes] | None = None
        for span in missing:
            tag, vr, start, value_at, end = span
            plain = ascii_text and not tag & 0x10000  # private ones depend on who made them
            piece = _plain(tag, vr, header[value_at:end]) if plain else None
            if piece is None:
                whole = self._read(header) if whole is None else whole
                piece = whole.get(tag, b"")
            pieces[tag] = piece
            self._known_bytes += end - start + len(piece)
            if self._known_bytes < MAX_KNOWN_BYTES:
                known[header[start:end]] = piece
        return pieces

    def _read(self, header: bytes) -> dict[int, bytes]:
        dataset = dcmread(io.BytesIO(header), stop_before_pixels=True)

        def told_by_uri(element: DataElement) -> str:
            return f"{self._base}/bulkdata/{self._bulk_path(dataset, element)}"

        json = whole_json_of(dataset, self._threshold, told_by_uri)
        for name in [name for name in json if name.startswith("0028") and "BulkDataURI" in json[name]]:
            # Viewers need look-up tables at once (PS3.18 F.2.7).
            json[name] = dataset[int(name, 16)].to_json_dict(None, 1 << 30)
        return {int(name, 16): _named(int(name, 16), value) for name, value in json.items()}


def _plain(tag: int, vr: str | None, value: bytes) -> bytes | None:
    """Of a value in explicit VR that is plain ASCII; None where pydicom has to look at it."""
    if vr in _PLAIN_TEXTS:
        text = value.rstrip(b"\0 ")
        if _PLAIN_TEXT.fullmatch(text):
            return _named(tag, {"vr": vr, "Value": text.decode("ascii").split("\\")})
    elif vr in _PLAIN_NUMBERS:
        form, number = _PLAIN_NUMBERS[vr]
        text = value.rstrip(b"\0 ")
        if form.fullmatch(text):
            return _named(tag, {"vr": vr, "Value": [number(one) for one in text.decode("ascii").split("\\")]})
    return None


def _named(tag: int, value: dict[str, Any]) -> bytes:
    return b'"%08X":' % tag + msgspec.json.encode(value, enc_hook=plain_json)
