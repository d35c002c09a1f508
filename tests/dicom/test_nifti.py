"""NIfTI becomes DICOM slices with every value where it was, shown upright."""

import gzip
import io
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from annotomy.dicom.nifti import nifti_to_dicom
from annotomy.dicom.volume_series import VolumeError

SHAPE = (3, 4, 2)
USUAL = {
    2: [1, 0, 0, 0, 1, 0],  # axial: rows to the patient's left, columns to the back
    1: [1, 0, 0, 0, 0, -1],  # coronal: rows to the left, columns down
    0: [0, 1, 0, 0, 0, -1],  # sagittal: rows to the back, columns down
}


def slices_of(path: Path, values: NDArray[np.int16], affine: NDArray[np.float64], name: str = "") -> list[Dataset]:
    file = path / "v.nii.gz"
    file.write_bytes(gzip.compress(nib.Nifti1Image(values, affine).to_bytes()))
    return [dcmread(io.BytesIO(data)) for data in nifti_to_dicom(file, salt="s", filename=name)]


def by_place(slices: list[Dataset]) -> dict[tuple[float, ...], int]:
    """LPS place of each voxel centre -> its value, by PS3.3 C.7.6.2.1.1."""
    found: dict[tuple[float, ...], int] = {}
    for one in slices:
        origin = np.array(one.ImagePositionPatient, float)
        along_row, along_column = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        row_spacing, column_spacing = map(float, one.PixelSpacing)
        for row, column in np.ndindex(one.Rows, one.Columns):
            place = origin + along_row * column_spacing * column + along_column * row_spacing * row
            found[tuple(np.round(place, 3) + 0.0)] = int(one.pixel_array[row, column])
    return found


@given(
    axes=st.sampled_from(list(permutations(range(3)))),
    signs=st.sampled_from(list(product((1, -1), repeat=3))),
    spacing=st.tuples(*[st.sampled_from((0.5, 1.0, 2.25))] * 3),
)
def test_every_value_stays_at_its_place_and_slices_stand_upright(
    tmp_path_factory: pytest.TempPathFactory,
    axes: tuple[int, ...],
    signs: tuple[int, ...],
    spacing: tuple[float, ...],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[axes[axis], axis] = signs[axis] * spacing[axis]
    affine[:3, 3] = (7.5, -3.25, 11)
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    slices = slices_of(tmp_path_factory.mktemp("nifti"), values, affine)

    expected: dict[tuple[float, ...], int] = {}
    for index in np.ndindex(*SHAPE):
        x, y, z = (affine @ [*index, 1.0])[:3]
        expected[tuple(np.round([-x, -y, z], 3) + 0.0)] = int(values[index])
    assert by_place(slices) == expected
    assert len(slices) == SHAPE[2], "slices stay slices"
    assert [float(v) for v in slices[0].ImageOrientationPatient] == USUAL[axes[2]]


def test_the_name_of_the_file_stands_for_patient_and_series(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.int16)
    named = slices_of(tmp_path, values, np.eye(4), "study/sub-01^T1w=x.nii.gz")[0]
    assert str(named.PatientName) == named.SeriesDescription == "sub-01 T1w x"
    again = slices_of(tmp_path, values, np.eye(4), "sub-01^T1w=x.nii.gz")[0]
    other = slices_of(tmp_path, values, np.eye(4), "sub-02.nii")[0]
    assert again.SOPInstanceUID == named.SOPInstanceUID, "the same upload makes the same instances"
    assert other.StudyInstanceUID != named.StudyInstanceUID, "no instance with one UID and two contents"


def test_a_sheared_grid_is_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    with pytest.raises(VolumeError, match="sheared"):
        slices_of(tmp_path, np.zeros(SHAPE, np.int16), affine)
