"""One frame out of an instance, in forms that decoders of others do not read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from annotomy.dicom.pixels import PixelError, decode_frame


def bit_image(frames: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 1, 1, 0, 0
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    return dataset


@given(count=st.integers(1, 5), rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_frames_of_one_bit_are_found_wherever_they_begin(count: int, rows: int, columns: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 2, (count, rows, columns), dtype=np.uint8)
    dataset = bit_image(frames)
    for index in range(count):
        assert np.array_equal(decode_frame(dataset, index), frames[index])


def test_frames_of_one_bit_that_are_cut_off_are_refused() -> None:
    dataset = bit_image(np.ones((4, 5, 7), np.uint8))
    dataset.PixelData = dataset.PixelData[:8]
    assert decode_frame(dataset, 0).all()
    with pytest.raises(PixelError):
        decode_frame(dataset, 3)
