"""Identifiers of C-FIND, C-GET and C-MOVE: data sets with keys to and from bytes (PS3.4 C.2, PS3.5 7, 6.1)."""

import io
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue

from annotomy.dicom.unreadable import UNREADABLE
from annotomy.dimse.dialogue import Message
from annotomy.dimse.negotiation import BIG_ENDIAN, IMPLICIT, PATIENT_ROOT_FIND, PATIENT_ROOT_GET, PATIENT_ROOT_MOVE
from annotomy.errors import BadRequest

RetrieveLevel = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
LEVELS: tuple[RetrieveLevel, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE_KEYS: dict[RetrieveLevel, str] = {
    "PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID",
}  # fmt: skip
UTF_8 = "ISO_IR 192"
MAX_KEYS = 256
"""Attributes of one identifier; real ones have some ten."""
_PATIENT_ROOT = frozenset({PATIENT_ROOT_FIND, PATIENT_ROOT_GET, PATIENT_ROOT_MOVE})


@dataclass(frozen=True, slots=True)
class Identifier:
    level: RetrieveLevel
    keys: dict[str, str]
    """Keywords that the standard knows, in the asker's order; several values are joined by backslashes."""
    data_set: Dataset
    """As it came, private and nested keys included."""


def read_identifier(message: Message) -> Identifier:
    """Raises BadRequest, whose text names the key and never a value."""
    data_set = read_data_set(message)
    try:
        return _interpret(data_set, message.context.abstract_syntax)
    except UNREADABLE as error:
        raise BadRequest(f"The identifier cannot be read ({type(error).__name__}).") from error


def read_data_set(message: Message) -> Dataset:
    """The data set of a message that is no instance. Raises BadRequest."""
    if message.data_set is None or message.data_set.too_large:
        raise BadRequest("The message has no data set, or one that is too large.")
    syntax = message.context.transfer_syntax
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data_set = read_dataset(io.BytesIO(message.data_set.data()), syntax == IMPLICIT, syntax != BIG_ENDIAN)
            if len(data_set) > MAX_KEYS:
                raise BadRequest("The data set has too many attributes.")
            data_set.decode()
    except UNREADABLE as error:
        raise BadRequest(f"The data set cannot be read ({type(error).__name__}).") from error
    return data_set


def write_data_set(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Encoded as the context wants it; text in UTF-8 where it is not plain ASCII."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax == IMPLICIT
    buffer.is_little_endian = transfer_syntax != BIG_ENDIAN
    encoding = data_set.get("SpecificCharacterSet") or "ISO_IR 6"
    write_dataset(buffer, data_set, parent_encoding=python_encoding.get(str(encoding), "iso8859"))
    return buffer.getvalue()


def _interpret(data_set: Dataset, abstract_syntax: str) -> Identifier:
    level = str(data_set.get("QueryRetrieveLevel", "")).strip()
    if level not in LEVELS or (level == "PATIENT" and abstract_syntax not in _PATIENT_ROOT):
        raise BadRequest("QueryRetrieveLevel is missing or not one of this information model.")
    keys: dict[str, str] = {}
    for element in data_set:
        if element.keyword and element.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet"):
            keys[element.keyword] = "" if element.VR == "SQ" else _text(element.value)
    return Identifier(level, keys, data_set)  # pyright: ignore[reportArgumentType]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple, MultiValue)):
        return "\\".join(str(one) for one in value)
    return str(value).strip("\0 ")
