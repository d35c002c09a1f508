"""DICOM attributes that rules may name, and the one form in which their values are compared.

The archive keeps the normalised values with each study, series and instance when it is stored; a rule's own value goes
through the same function. SQL then compares bytes, so no locale and no letter case decides what somebody sees. Within a
kind, the order of normalised texts is the order of the values: ranges of dates, ages and numbers are ranges of texts.

A value that cannot be compared (unreadable bytes, no date where a date belongs, longer than is kept) is none and not absent
either: the attribute's name is kept under `UNREADABLE`, and rules take it for what shows less (visibility.py).
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "date", "age", "number"]
Table = Literal["study", "series", "instance"]
MAX_VALUE_LENGTH = 400
"""Characters: the longest person name of three groups fits; descriptions and codes are shorter."""
UNREADABLE = "unreadable"
"""Beside the values: names of attributes whose value cannot be compared. No attribute is spelled so."""
_SPACES = re.compile(r"\s+")
_AGE = re.compile(r"^(\d{1,3})([DWMY])$")
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
_NUMBER_OFFSET = 1 << 40


@dataclass(frozen=True, slots=True)
class Attribute:
    table: Table
    """Where its values are kept; rules at another level look up or down from there."""
    kind: Kind = "text"


ATTRIBUTES: dict[str, Attribute] = {
    "PatientID": Attribute("study"),
    "PatientName": Attribute("study"),
    "PatientSex": Attribute("study"),
    "PatientAge": Attribute("study", "age"),
    "PatientBirthDate": Attribute("study", "date"),
    "StudyDate": Attribute("study", "date"),
    "StudyDescription": Attribute("study"),
    "StudyID": Attribute("study"),
    "AccessionNumber": Attribute("study"),
    "ReferringPhysicianName": Attribute("study"),
    "StudyInstanceUID": Attribute("study"),
    "Modality": Attribute("series"),
    "BodyPartExamined": Attribute("series"),
    "SeriesDescription": Attribute("series"),
    "SeriesNumber": Attribute("series", "number"),
    "SeriesDate": Attribute("series", "date"),
    "SeriesInstanceUID": Attribute("series"),
    "InstitutionName": Attribute("series"),
    "InstitutionalDepartmentName": Attribute("series"),
    "StationName": Attribute("series"),
    "Manufacturer": Attribute("series"),
    "ManufacturerModelName": Attribute("series"),
    "ProtocolName": Attribute("series"),
    "Laterality": Attribute("series"),
    "SOPClassUID": Attribute("instance"),
    "SOPInstanceUID": Attribute("instance"),
    "ImageType": Attribute("instance"),
    "BurnedInAnnotation": Attribute("instance"),
    "PatientIdentityRemoved": Attribute("instance"),
}


def normalised(attribute: str, value: str) -> str:
    """The compared form, of any length; empty for a value that is empty or not of the attribute's kind."""
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", value.replace("\0", " "))).strip()
    match ATTRIBUTES[attribute].kind:
        case "date":
            digits = text.replace(".", "").replace("-", "")
            return digits if len(digits) == 8 and digits.isascii() and digits.isdigit() else ""
        case "age":
            found = _AGE.match(text.upper())
            return f"{int(int(found[1]) * _DAYS[found[2]]):06d}" if found else ""
        case "number":
            try:
                return f"{int(text) + _NUMBER_OFFSET:015d}"
            except ValueError:
                return ""
        case "text":
            return unicodedata.normalize("NFC", text.casefold())


def rule_values(table: Table, values: Iterable[tuple[str, list[str] | None]]) -> dict[str, list[str]]:
    """What the archive keeps of one study, series or instance: attributes without a value are left out.

    The values of each attribute, none of them empty; None for one that could not be read. If one of several values cannot be
    compared, none of them is kept: what was not read may be the one that a rule is about.
    """
    kept: dict[str, list[str]] = {}
    unreadable: list[str] = []
    for attribute, raw in values:
        assert ATTRIBUTES[attribute].table == table
        texts = None if raw is None else [normalised(attribute, one) for one in raw]
        if texts is None or not all(0 < len(text) <= MAX_VALUE_LENGTH for text in texts):
            unreadable.append(attribute)
        elif texts:
            kept[attribute] = texts
    return kept | ({UNREADABLE: unreadable} if unreadable else {})


def of_table(table: Table) -> list[str]:
    return [name for name, attribute in ATTRIBUTES.items() if attribute.table == table]
