"""A value that cannot be read is none; a server without memory says so."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from annotomy.dicom.attributes import json_of, text_of


class _Starved(Dataset):
    def get(self, *_: Any, **__: Any) -> Any:
        raise MemoryError

    def __contains__(self, name: Any) -> bool:
        raise MemoryError


def test_lack_of_memory_is_no_missing_value() -> None:
    with pytest.raises(MemoryError):
        text_of(_Starved(), "PatientID")
    with pytest.raises(MemoryError):
        json_of(_Starved(), "PatientID")
