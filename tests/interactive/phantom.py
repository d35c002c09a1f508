"""A CT of two bright balls in noisy tissue, and where they are."""

import io

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import generate_uid

from tests.support.dicom_files import ct_instance

SPACING_KJI = (2.5, 0.75, 0.75)
SHAPE_KJI = (24, 64, 64)
FIRST, SECOND = (12, 20, 20), (12, 46, 44)
RADIUS_MM = 9.0


def ball(at: tuple[int, int, int]) -> NDArray[np.bool_]:
    k, j, i = (
        (axis - centre) * step for axis, centre, step in zip(np.indices(SHAPE_KJI), at, SPACING_KJI, strict=True)
    )
    return k * k + j * j + i * i <= RADIUS_MM**2


def values() -> NDArray[np.int16]:
    noise = np.random.default_rng(7).normal(0, 12, SHAPE_KJI)
    return np.rint(40 + 60.0 * (ball(FIRST) | ball(SECOND)) + noise).astype(np.int16)


def files() -> list[bytes]:
    study, series = generate_uid(), generate_uid()
    return [_with_pixels(study, series, n, plane) for n, plane in enumerate(values(), start=1)]


def _with_pixels(study: str, series: str, number: int, plane: NDArray[np.int16]) -> bytes:
    made = ct_instance(study_instance_uid=study, series_instance_uid=series, number=number, size=plane.shape[0])
    dataset = dcmread(io.BytesIO(made))
    dataset.PixelData = (plane + 1024).astype(np.int16).tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float(np.count_nonzero(one & other)) / float(np.count_nonzero(one) + np.count_nonzero(other))
