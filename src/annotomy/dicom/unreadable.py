"""What pydicom raises for bytes that are no DICOM, or DICOM that it does not read.

Its readers convert values late and promise no exception type, so every place that reads what a stranger sent catches
these, and only these: lack of memory, a cancelled task and faults of the machine pass.
"""

from pydicom.errors import BytesLengthException, InvalidDicomError

UNREADABLE: tuple[type[Exception], ...] = (
    InvalidDicomError,
    BytesLengthException,  # a number's bytes are no multiple of its width; it is no ValueError
    EOFError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,  # a form of the standard that pydicom does not read
    RecursionError,
)
"""`OSError` because pydicom reports a short read so. Sources: files in memory, never a disk that may be at fault."""
