"""What the demo shows, from packages that are installed with the extra `demo`: nothing is fetched from anywhere.

The head is the average of 152 people's heads (ICBM 2009a, without skull), which nilearn ships as NIfTI; the others are
test files of pydicom and pydicom-data that look good on a screen.
"""

from importlib import metadata, util
from pathlib import Path

HEAD_NAME = "MNI152 T1 head.nii.gz"
"""The name that it is uploaded under; the archive names patient and series after it."""

_HEAD = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
_PYDICOM = (
    "examples_ybr_color.dcm",  # ultrasound of the heart: 30 colour frames, JPEG
    "examples_overlay.dcm",  # MR of a liver with a marked lesion
)
_PYDICOM_DATA = (
    "explicit_VR-UN.dcm",  # CT of an abdomen, JPEG 2000
    "RG3_J2KI.dcm",  # radiograph of a leg, JPEG 2000
)


class SamplesMissing(Exception):
    """A package with samples is not installed; the text says which and how to get it."""


def head_file() -> Path:
    """Raises SamplesMissing."""
    return _existing(_package_folder("nilearn") / _HEAD)


def dicom_files() -> list[Path]:
    """Raises SamplesMissing."""
    try:
        data = Path(str(metadata.distribution("pydicom-data").locate_file("data_store"))) / "data"
    except metadata.PackageNotFoundError as error:
        raise _missing("pydicom-data") from error
    own = _package_folder("pydicom") / "data" / "test_files"
    return [_existing(own / name) for name in _PYDICOM] + [_existing(data / name) for name in _PYDICOM_DATA]


def _package_folder(name: str) -> Path:
    """Found without importing it: nilearn takes seconds to import."""
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(name)
    return Path(next(iter(spec.submodule_search_locations)))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SamplesMissing(f"{path} is not there; the package's release does not fit (see uv.lock).")
    return path


def _missing(package: str) -> SamplesMissing:
    return SamplesMissing(f"The demo shows samples of the package {package}: pip install 'annotomy[demo]'.")
