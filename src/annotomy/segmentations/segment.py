"""One segment, as a new segmentation names it."""

from dataclasses import dataclass

from annotomy.dicom.seg import ANATOMICAL_STRUCTURE, Coded


@dataclass(frozen=True, slots=True)
class NewSegment:
    number: int
    label: str
    code: Coded
    """(value, scheme, meaning)"""
    color: str
    """#rrggbb"""
    category: Coded = ANATOMICAL_STRUCTURE
    algorithm: tuple[str, str] | None = None
    """(name, version) of the model; None: drawn by a person."""
