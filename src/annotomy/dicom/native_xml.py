"""The Native DICOM Model (PS3.19 A.1) into DICOM JSON (PS3.18 F.2), which everything else here reads.

The text is untrusted: no document type, hence no entities, and nothing is fetched.
"""

from typing import Any, Final
from xml.etree import ElementTree

MAX_DEPTH: Final = 32
"""Sequences inside of sequences; real headers have fewer than ten."""
_WHOLE: Final = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_REAL: Final = frozenset({"FL", "FD"})
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def json_of_xml(data: bytes) -> dict[str, Any]:
    """One data set. Raises ValueError."""
    text = data.decode("utf-8-sig")
    if "<!" in text.replace("<!--", "").replace("<![CDATA[", ""):
        raise ValueError("a document type is not read")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type there are no entities
    except ElementTree.ParseError as error:
        raise ValueError("no well-formed XML") from error
    if _name(root) != "NativeDicomModel":
        raise ValueError("the root is not NativeDicomModel")
    return _data_set(root, 0)


def _data_set(parent: ElementTree.Element, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise ValueError("sequences are nested too deeply")
    return {one.get("tag", "").upper(): _attribute(one, depth) for one in parent if _name(one) == "DicomAttribute"}


def _attribute(element: ElementTree.Element, depth: int) -> dict[str, Any]:
    vr = element.get("vr", "")
    found: dict[str, Any] = {"vr": vr}
    values: list[Any] = []
    for child in sorted(element, key=lambda one: int(one.get("number", "1"))):
        match _name(child):
            case "Value":
                values.append(_value(vr, child.text or ""))
            case "PersonName":
                values.append(_person(child))
            case "Item":
                values.append(_data_set(child, depth + 1))
            case "BulkData":
                found["BulkDataURI"] = child.get("uri") or child.get("uuid") or ""
            case "InlineBinary":
                found["InlineBinary"] = (child.text or "").strip()
            case _:
                continue
    return found | ({"Value": values} if values else {})


def _value(vr: str, text: str) -> Any:
    if text == "":
        return None
    return int(text) if vr in _WHOLE else float(text) if vr in _REAL else text


def _person(element: ElementTree.Element) -> dict[str, str]:
    groups: dict[str, str] = {}
    for group in element:
        if _name(group) in _GROUPS:
            parts = {_name(part): part.text or "" for part in group}
            groups[_name(group)] = "^".join(parts.get(one, "") for one in _COMPONENTS).rstrip("^")
    return groups


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
