"""The built-in models do what their cards say, and refuse what they were not made for."""

import random
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import nilearn
import numpy as np
import pydicom
import pytest
from nibabel.funcs import as_closest_canonical
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nilearn.datasets import load_mni152_brain_mask
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from annotomy.inference.runners.builtin import builtin_runners
from annotomy.ports import ModelOutput, ModelRefusal, Volume
from tests.support.shared_data import shared_data_folder

# Measured 0.878 against the mask that nilearn computes; the model is coarse and says so.
BRAIN_DICE_LEAST = 0.85
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MNI_HEAD = Path(nilearn.__file__).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def ignore(_: float) -> None:
    return None


def read(path: Path) -> Any:
    return cast("Any", nib.load(path))


def volume_of(image: Any, modality: str = "MR") -> Volume:
    values = np.ascontiguousarray(np.asarray(image.dataobj, np.float32).T)
    return Volume(values, RAS_TO_LPS @ image.affine, modality)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def centre_ras_mm(mask_kji: NDArray[np.bool_], image: Any) -> NDArray[np.float64]:
    return (image.affine @ np.append(np.argwhere(mask_kji.T).mean(axis=0), 1.0))[:3]


@pytest.fixture(scope="module")
def mni_head() -> Any:
    """The ICBM 2009a symmetric T1 average, without skull, as nilearn ships it."""
    return read(MNI_HEAD)


@pytest.fixture(scope="module")
def mni_hippocampus(mni_head: Any) -> ModelOutput:
    return builtin_runners()["hippocampus"].predict(volume_of(mni_head), ignore)


def test_cards_name_labels_licence_and_modality() -> None:
    for name, runner in builtin_runners().items():
        card = runner.describe()
        assert card.name == name
        assert card.modalities == ("MR",)
        assert card.licence == "CC-BY-SA-4.0"
        assert [label.number for label in card.labels] == list(range(1, len(card.labels) + 1))


def test_head_finds_the_brain_of_the_mni_template_in_any_orientation(mni_head: Any) -> None:
    mask = np.asarray(cast("Any", load_mni152_brain_mask(resolution=1)).dataobj).T > 0
    runner = builtin_runners()["head"]
    shares: list[float] = []
    found = runner.predict(volume_of(mni_head), shares.append)
    assert found.labels.shape == mask.shape
    assert found.labels.dtype == np.uint8
    assert dice(found.labels > 0, mask) > BRAIN_DICE_LEAST
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    turned = mni_head.as_reoriented(ornt_transform(io_orientation(mni_head.affine), axcodes2ornt(("P", "I", "R"))))
    again = runner.predict(volume_of(turned), ignore).labels
    back = Nifti1Image(again.T, turned.affine)
    same = np.asarray(cast("Any", as_closest_canonical(back)).dataobj).T
    assert dice(same > 0, found.labels > 0) > 0.98


def test_hippocampi_of_a_whole_head_lie_where_anatomy_has_them(mni_head: Any, mni_hippocampus: ModelOutput) -> None:
    labels = mni_hippocampus.labels
    right_half = np.zeros(labels.shape, bool)
    right_half[:, :, 99:] = True  # the template runs left to right with the middle at voxel 98
    for half, side in ((~right_half, -1), (right_half, 1)):
        centre = centre_ras_mm((labels > 0) & half, mni_head)
        assert np.abs(centre - np.array([side * 26.0, -22.0, -14.0])).max() < 6, centre
        assert 1.0 < ((labels > 0) & half).sum() / 1000 < 6.0
        anterior, posterior = (centre_ras_mm((labels == n) & half, mni_head) for n in (1, 2))
        assert anterior[1] > posterior[1] + 8


def test_hippocampi_lie_within_the_brain(mni_head: Any, mni_hippocampus: ModelOutput) -> None:
    brain = np.asarray(mni_head.dataobj).T > 0
    assert brain[mni_hippocampus.labels > 0].mean() > 0.99


def test_the_same_volume_gives_the_same_voxels(mni_head: Any, mni_hippocampus: ModelOutput) -> None:
    again = builtin_runners()["hippocampus"].predict(volume_of(mni_head), ignore)
    assert np.array_equal(again.labels, mni_hippocampus.labels)
    assert again.quality == mni_hippocampus.quality


def test_a_raising_report_cancels_the_run(mni_head: Any) -> None:
    class Cancelled(Exception):
        pass

    def cancel(share: float) -> None:
        if share > 0.1:
            raise Cancelled

    with pytest.raises(Cancelled):
        builtin_runners()["head"].predict(volume_of(mni_head), cancel)


@pytest.mark.parametrize("name", ["head", "hippocampus"])
@pytest.mark.parametrize(
    ("values", "spacing", "modality", "body_part", "slug"),
    [
        ("noise", 3.0, "CT", "", "modality-not-supported"),
        ("hounsfield", 3.0, "", "", "modality-not-supported"),
        ("noise", 3.0, "MR", "LSPINE", "anatomy-not-recognised"),
        ("noise", 3.0, "MR", "", "anatomy-not-recognised"),
        ("noise", 0.8, "MR", "", "anatomy-not-recognised"),
        ("flat", 3.0, "MR", "", "anatomy-not-recognised"),
        ("sphere", 3.0, "MR", "", "anatomy-not-recognised"),
        ("sphere", 0.8, "MR", "", "anatomy-not-recognised"),
        ("not finite", 3.0, "MR", "", "values-not-finite"),
    ],
)
def test_what_is_no_mr_of_a_head_is_refused(
    name: str, values: str, spacing: float, modality: str, body_part: str, slug: str
) -> None:
    random_numbers = np.random.default_rng(5)
    data = random_numbers.uniform(0, 100, (48, 60, 48)).astype(np.float32)
    if values == "hounsfield":
        data -= 1000
    if values == "flat":
        data[:] = 7
    if values == "not finite":
        data[3, 4, 5] = np.nan
    if values == "sphere":
        k, j, i = np.indices(data.shape)
        data = data * 0.05 + 100 * ((k - 24) ** 2 + (j - 30) ** 2 + (i - 24) ** 2 < 18**2)
    volume = Volume(data.astype(np.float32), np.diag([spacing, spacing, spacing, 1.0]), modality, body_part)
    with pytest.raises(ModelRefusal) as refusal:
        builtin_runners()[name].predict(volume, ignore)
    assert refusal.value.slug == slug


@pytest.mark.parametrize("name", ["head", "hippocampus"])
def test_a_single_ct_slice_of_pydicom_is_refused_even_when_it_says_mr(name: str) -> None:
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array.astype(np.float32)[None]
    with pytest.raises(ModelRefusal):
        builtin_runners()[name].predict(Volume(values, np.diag([0.66, 0.66, 5.0, 1.0]), "MR"), ignore)


def validation_cases() -> list[tuple[Any, Any]]:
    folder = shared_data_folder() / "pairs" / "msd-hippocampus-train"
    names = sorted(p.name for p in (folder / "images").glob("hippocampus_*.nii.gz"))
    random.Random(7).shuffle(names)  # noqa: S311  # the split that training used
    return [(read(folder / "images" / name), read(folder / "labels" / name)) for name in names[200:205]]


def test_hippocampi_of_cases_that_training_never_saw_are_found() -> None:
    scores: list[float] = []
    for image, label in validation_cases():
        found = builtin_runners()["hippocampus"].predict(volume_of(image), ignore)
        scores.append(dice(found.labels > 0, np.asarray(label.dataobj).T > 0))
    assert np.mean(scores) >= 0.86, scores


@pytest.mark.parametrize("order", ["LPS", "PSR", "IAL"])
def test_a_crop_may_come_in_any_orientation(order: str) -> None:
    image, label = validation_cases()[0]
    straight = dice(
        builtin_runners()["hippocampus"].predict(volume_of(image), ignore).labels > 0, np.asarray(label.dataobj).T > 0
    )
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(order)))
    found = builtin_runners()["hippocampus"].predict(volume_of(image.as_reoriented(change)), ignore)
    turned = dice(found.labels > 0, np.asarray(label.as_reoriented(change).dataobj).T > 0)
    assert abs(straight - turned) < 0.02


def test_a_spine_is_refused_whatever_piece_of_it_is_given() -> None:
    image = read(shared_data_folder() / "pairs" / "sct-t2" / "t2" / "t2.nii.gz")
    whole = np.asarray(image.dataobj, np.float32)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    size = np.minimum(np.array([36, 50, 36]) / spacing, whole.shape).astype(int)
    random_numbers = np.random.default_rng(3)
    for _ in range(5):
        start = [int(random_numbers.integers(0, max(1, n - s + 1))) for n, s in zip(whole.shape, size, strict=True)]
        piece = whole[tuple(slice(a, a + int(s)) for a, s in zip(start, size, strict=True))]
        volume = Volume(np.ascontiguousarray(piece.T), RAS_TO_LPS @ image.affine, "MR")
        with pytest.raises(ModelRefusal) as refusal:
            builtin_runners()["hippocampus"].predict(volume, ignore)
        assert refusal.value.slug in ("anatomy-not-recognised", "volume-too-large")
