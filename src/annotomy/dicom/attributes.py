"""Values of scanned attributes as text, whole numbers and DICOM JSON (PS3.18 F.2).

Plain ASCII values of the common VRs are read directly, which is most of what headers hold and an order of magnitude
faster; everything else goes through pydicom, element by element. Both ways give the same, which the tests compare.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from annotomy.dicom.scanner import CHARACTER_SET, Scan

MAX_VALUE_BYTES: Final = 16 << 10
"""A longer value is kept in the file and not in the index: what is indexed has at most 64 characters (PS3.5 6.2)."""

UNDECODED: Final = "\ufffd"
"""What pydicom puts for bytes that the character set does not have."""

_PLAIN = re.compile(rb"[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])?(?:\\[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])?)*")
"""Values of printable ASCII, separated by backslashes, none of them empty or with a space at an end."""
_PLAIN_PN = re.compile(rb"[!-<>-\[\]-~](?:[ -<>-\[\]-~]*[!-<>-\[\]_-~])?")
"""A person name of one component group that does not end in an empty component."""
_WHOLE = re.compile(rb"-?[0-9]{1,9}")
_TEXT_VRS = frozenset({"CS", "LO", "SH", "DA", "TM", "AS", "UI"})


def tags_of(keywords: Iterable[str]) -> dict[str, tuple[int, str]]:
    """keyword -> (tag, VR) by the data dictionary."""
    found: dict[str, tuple[int, str]] = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        found[keyword] = (tag, dictionary_VR(tag))
    return found


def text_of(dataset: Dataset, keyword: str) -> str:
    """The value, several joined by backslashes; empty when it is missing or cannot be read."""
    try:
        value = dataset.get(keyword)
        values = value if isinstance(value, MultiValue) else [value]
        return "\\".join("" if item is None else str(item) for item in values).replace("\0", "").strip()
    except MemoryError:
        raise  # the server's trouble, not the value's
    except Exception:  # noqa: BLE001 - pydicom's converters raise whatever the bytes provoke; such a value is none
        return ""


def texts_of(dataset: Dataset, keyword: str) -> list[str] | None:
    """Each value that is not empty. None when there is one that cannot be read as text: pydicom cannot convert it, it is no text
    (a wrong VR), or its bytes are none of its character set."""
    try:
        value = dataset.get(keyword)
        values: Iterable[Any] = value if isinstance(value, (MultiValue, Sequence)) else [value]
        if any(isinstance(item, (bytes, Dataset)) and item for item in values):
            return None
        texts = [str(item).replace("\0", "").strip() for item in values if item is not None and item != b""]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above
        return None
    return None if any(UNDECODED in text for text in texts) else [text for text in texts if text]


def json_of(dataset: Dataset, keyword: str) -> dict[str, Any] | None:
    """DICOM JSON of one attribute; None when it is missing or cannot be read."""
    try:
        return dataset[keyword].to_json_dict(None, MAX_VALUE_BYTES) if keyword in dataset else None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above
        return None


def whole_json_of(dataset: Dataset, threshold_bytes: int, bulk_handler: Callable[[DataElement], str]) -> dict[str, Any]:
    """DICOM JSON of a data set. An attribute that breaks the rules of its VR is kept, one that cannot be read is left out.

    (pydicom's own way to leave out what cannot be read drops valid-looking UIDs and dates for a detail of their form.)
    """
    found: dict[str, Any] = {}
    for tag in dataset.keys():  # noqa: SIM118 - a data set iterates over elements, and converts them
        try:
            found[f"{tag:08X}"] = dataset[tag].to_json_dict(bulk_handler, threshold_bytes)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - as in text_of
            continue
    return found


class Attributes:
    """The wanted attributes of one scan."""

    def __init__(self, found: Scan, wanted: dict[str, tuple[int, str]]) -> None:
        self._scan = found
        self._wanted = wanted
        charset = found.value(CHARACTER_SET) or b""
        # ISO-IR 13 and 14 have a yen sign and an overline in the places of backslash and tilde.
        self._ascii = b"IR 13" not in charset and b"IR 14" not in charset

    def text(self, keyword: str, limit: int) -> str:
        known = self._plain(keyword)
        return (text_of(self._dataset, keyword) if known is None else known[1].decode("ascii"))[:limit]

    def texts(self, keyword: str) -> list[str] | None:
        """Each of its values that is not empty; None when there is one that cannot be read, or is longer than what is indexed."""
        known = self._plain(keyword)
        if known is not None:
            return known[1].decode("ascii").split("\\")
        element = self._scan.elements.get(self._wanted[keyword][0])
        if element is not None and element.length > MAX_VALUE_BYTES:
            return None
        return texts_of(self._dataset, keyword)

    def whole(self, keyword: str) -> int | None:
        """The number before a decimal point; None when there is none that fits 32 bits."""
        tag, _ = self._wanted[keyword]
        element = self._scan.elements.get(tag)
        if element is None:
            return None
        if element.length == 2 and element.vr in ("US", None) and self._wanted[keyword][1] == "US":
            return int.from_bytes(self._scan.value(tag) or b"", "little" if self._scan.little_endian else "big")
        return whole_from(self.text(keyword, 40))

    def json(self, keywords: Iterable[str]) -> dict[str, Any]:
        """{tag: attribute} of those that are present, in their order."""
        found: dict[str, Any] = {}
        for keyword in keywords:
            value = self._json(keyword)
            if value is not None:
                found[f"{self._wanted[keyword][0]:08X}"] = value
        return found

    def _json(self, keyword: str) -> dict[str, Any] | None:
        tag, vr = self._wanted[keyword]
        element = self._scan.elements.get(tag)
        if element is None or element.length > MAX_VALUE_BYTES:
            return None
        if element.length == 0 and element.vr in (vr, None):
            return {"vr": vr}
        if vr == "US" and element.length == 2 and element.vr in ("US", None):
            return {"vr": vr, "Value": [self.whole(keyword)]}
        known = self._plain(keyword)
        if known is None:
            return json_of(self._dataset, keyword)
        vr, value = known
        if vr == "PN":
            return {"vr": vr, "Value": [{"Alphabetic": value.decode("ascii")}]}
        return {"vr": vr, "Value": [int(value)] if vr == "IS" else value.decode("ascii").split("\\")}

    def _plain(self, keyword: str) -> tuple[str, bytes] | None:
        """(VR, value) when it is plain ASCII in the VR that the dictionary names."""
        tag, vr = self._wanted[keyword]
        element = self._scan.elements.get(tag)
        if element is None or not self._ascii or element.vr not in (vr, None) or element.length > MAX_VALUE_BYTES:
            return None
        value = (self._scan.value(tag) or b"").rstrip(b"\0 ")
        pattern = _PLAIN if vr in _TEXT_VRS else _PLAIN_PN if vr == "PN" else _WHOLE if vr == "IS" else None
        return (vr, value) if pattern is not None and pattern.fullmatch(value) else None

    @cached_property
    def _dataset(self) -> Dataset:
        """The wanted elements as pydicom would have read them."""
        found = self._scan
        raw: dict[BaseTag, RawDataElement] = {}
        for tag, element in found.elements.items():
            if element.length <= MAX_VALUE_BYTES:
                raw[BaseTag(tag)] = RawDataElement(
                    BaseTag(tag), element.vr, element.length, found.value(tag), element.value_at,
                    element.vr is None, found.little_endian,
                )  # fmt: skip
        dataset = Dataset(raw)  # pyright: ignore[reportArgumentType] - raw elements are what its own reader passes
        encoding: Any = "iso8859"
        if BaseTag(CHARACTER_SET) in raw:
            try:
                encoding = convert_encodings(convert_raw_data_element(raw[BaseTag(CHARACTER_SET)]).value)
            except Exception:  # noqa: BLE001 - a character set that cannot even be read is the default one
                del raw[BaseTag(CHARACTER_SET)]
        dataset.set_original_encoding(found.implicit, found.little_endian, encoding)
        return dataset


def whole_from(text: str) -> int | None:
    try:
        value = int(text.split(".")[0])
    except ValueError:
        return None
    return value if -(1 << 31) <= value < 1 << 31 else None
