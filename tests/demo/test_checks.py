"""The demo's checks pass for what is right and fail for what is wrong: a demo that cannot fail proves nothing."""

import io
import string
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from annotomy.demo import checks, samples, words
from annotomy.demo.checks import CheckFailed, Mask
from tests.support.dicom_files import ct_series

MNI_AFFINE = np.array([[1.0, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def reference() -> NDArray[np.uint8]:
    from nilearn.datasets import load_mni152_brain_mask

    image: Any = load_mni152_brain_mask(resolution=1)
    assert np.array_equal(image.affine, MNI_AFFINE)
    return np.asarray(image.dataobj).astype(np.uint8)


def test_the_reference_itself_has_dice_one_on_any_grid(reference: NDArray[np.uint8]) -> None:
    assert checks.brain_dice(Mask(reference, MNI_AFFINE)) == 1.0
    # The same voxels told the other way round: flipped and with axes exchanged.
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = reference.shape[0] - 1
    turned = Mask(reference[::-1].transpose(1, 0, 2), (MNI_AFFINE @ flip)[:, [1, 0, 2, 3]])
    assert checks.brain_dice(turned) == 1.0


def test_a_mask_at_the_wrong_place_fails(reference: NDArray[np.uint8]) -> None:
    shifted = MNI_AFFINE.copy()
    shifted[2, 3] += 40
    with pytest.raises(CheckFailed, match=rf"Dice 0\.\d+; at least {checks.LEAST_BRAIN_DICE} was due"):
        checks.brain_dice(Mask(reference, shifted))


def test_hippocampi_are_told_apart_and_judged_by_their_volume() -> None:
    labels = np.zeros((100, 10, 10), np.uint8)
    affine = np.diag([1.0, 3.0, 10.0, 1.0])
    affine[0, 3] = -50
    labels[:40, 0, 0] = 1
    labels[60:, 0, :2] = 2
    right_left = (80 * 30 / 1000, 40 * 30 / 1000)
    with pytest.raises(CheckFailed, match=r"left hippocampus has 1\.20 mL"):
        checks.hippocampi_ml(Mask(labels, affine))
    labels[:40, 0, :3] = 1
    assert checks.hippocampi_ml(Mask(labels, affine)) == pytest.approx((right_left[0], 3.6))


def test_told_figures_that_are_not_those_of_the_mask_fail() -> None:
    mask = Mask(np.ones((2, 3, 4), np.uint8), np.diag([1.0, 1.0, 2.0, 1.0]))
    told = {"segment_number": 1, "label": "all", "statistics": {"voxels": 24, "volume_mm3": 48.0}}
    checks.check_statistics(mask, told)
    for wrong in ({"voxels": 23, "volume_mm3": 48.0}, {"voxels": 24, "volume_mm3": 24.0}):
        with pytest.raises(CheckFailed):
            checks.check_statistics(mask, told | {"statistics": wrong})


def test_a_dicom_seg_is_compared_with_what_was_told() -> None:
    sources = [dcmread(io.BytesIO(data)) for data in ct_series(4)]
    mask = np.zeros((4, 16, 16), bool)
    mask[1:3, 4:9, 4:10] = True
    code = hd.sr.CodedConcept("1", "99TEST", "thing")
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=1,
                segment_label="thing",
                segmented_property_category=code,
                segmented_property_type=code,
                algorithm_type="MANUAL",
            )
        ],
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    buffer = io.BytesIO()
    seg.save_as(buffer)
    told = {"segment_number": 1, "label": "thing", "statistics": {"voxels": int(mask.sum())}}
    checks.check_dicom_seg(buffer.getvalue(), [told])
    for wrong in (
        told | {"label": "another"},
        told | {"statistics": {"voxels": 1}},
        told | {"segment_number": 2},
    ):
        with pytest.raises(CheckFailed):
            checks.check_dicom_seg(buffer.getvalue(), [wrong])


def test_the_samples_are_there_and_have_uids_of_their_own() -> None:
    assert samples.head_file().is_file()
    studies = [dcmread(path, stop_before_pixels=True) for path in samples.dicom_files()]
    assert {one.Modality for one in studies} == {"CT", "MR", "US", "CR"}
    assert all(one.StudyInstanceUID.is_valid and one.SOPInstanceUID.is_valid for one in studies)
    assert len({one.StudyInstanceUID for one in studies}) == len(studies)
    assert any(int(one.get("NumberOfFrames", 1)) > 1 for one in studies)


@pytest.mark.parametrize("key", words.KEYS)
def test_everything_is_said_in_both_languages_with_the_same_figures(key: str) -> None:
    english, korean = words.sentences(key)
    names = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in (english, korean)]
    assert names[0] == names[1]
    assert english and korean
