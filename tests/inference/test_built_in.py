"""The built-in models as they run in production: a NIfTI head becomes a DICOM series, a worker's job, and a proposal."""

import gzip
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import nibabel as nib
import nilearn
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from nilearn.datasets import load_mni152_brain_mask
from numpy.typing import NDArray

from annotomy.actor import Actor
from annotomy.archive.volume import load_volume
from annotomy.dicom.nifti import nifti_to_dicom
from annotomy.inference.runners.builtin import builtin_runners
from tests.inference.support import Scene, make_scene
from tests.support.application import Application

MNI_HEAD = Path(nilearn.__file__).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
BRAIN_DICE_LEAST = 0.87
"""training/head/evaluation.json has 0.878; the series' values are rounded to 16 bits."""
HIPPOCAMPUS_CM3 = (3.0, 6.0)
"""Both parts of one side, on the template: evaluation.json has 4.35 and 4.37."""


@pytest.fixture
async def scene(application: Application) -> Scene:
    return await make_scene(application, list(nifti_to_dicom(MNI_HEAD, salt="test")))


async def test_the_mni_head_gets_a_brain_and_two_hippocampi(application: Application, scene: Scene) -> None:
    await scene.asked("head")
    head, hippocampus = [await scene.ended(model) for model in ("head", "hippocampus")]
    assert (head["state"], hippocampus["state"]) == ("succeeded", "succeeded")
    assert head["flags"] == ["coarse-mask"]

    found = await labels_of(application, scene, head)
    assert dice(on_the_template(found) > 0, brain_of_the_template()) >= BRAIN_DICE_LEAST
    # What the platform stored is what the model says of the same voxels, and again when asked again.
    actor = Actor(UUID((await scene.get("/users/me"))["id"]), "annotator")
    loaded = await load_volume(application.services, actor, scene.series_instance_uid)
    direct = builtin_runners()["head"].predict(loaded.volume, lambda _: None)
    assert np.allclose(np.diag([-1.0, -1.0, 1.0, 1.0]) @ found.affine, loaded.volume.affine_lps, atol=1e-4)
    assert np.array_equal(voxels(found), direct.labels)
    [first, second] = [one for one in (await scene.get("/predictions"))["items"] if one["model"] == "head"]
    assert first["input_digest"] == second["input_digest"]
    assert np.array_equal(voxels(await labels_of(application, scene, second)), voxels(found))

    for side in ("left", "right"):
        low, high = HIPPOCAMPUS_CM3
        assert low < hippocampus["quality"][f"{side}_hippocampus_cm3"] < high
    segmentation = await scene.get(f"/segmentations/{hippocampus['proposal_id']}")
    assert [s["label"] for s in segmentation["segments"]] == ["Anterior hippocampus", "Posterior hippocampus"]
    total_mm3 = sum(s["statistics"]["volume_mm3"] for s in segmentation["segments"])
    per_model = sum(hippocampus["quality"][f"{side}_hippocampus_cm3"] for side in ("left", "right")) * 1000
    assert abs(total_mm3 - per_model) / per_model < 0.1  # the model measures on its own grid


async def labels_of(application: Application, scene: Scene, prediction: Any) -> Any:
    """The mask as a NIfTI image on the series' own grid, as the export says it."""
    path = f"/api/v1/segmentations/{prediction['segmentation_id']}/export?format=nifti"
    exported = await application.client.get(path, headers=scene.headers)
    assert exported.status_code == 200, exported.text
    data = gzip.decompress(exported.content) if exported.content[:2] == b"\x1f\x8b" else exported.content
    return Nifti1Image.from_bytes(data)


def on_the_template(image: Any) -> NDArray[np.uint8]:
    """[k, j, i] in the order of the template's file: the series' slices stand upright, which the file's do not."""
    turned: Any = nib.as_closest_canonical(image)  # pyright: ignore[reportPrivateImportUsage]
    template: Any = nib.load(MNI_HEAD)  # pyright: ignore[reportPrivateImportUsage]
    assert np.allclose(turned.affine, template.affine, atol=1e-4)
    return voxels(turned)


def voxels(image: Any) -> NDArray[np.uint8]:
    """[k, j, i]"""
    return np.asarray(image.dataobj).T.astype(np.uint8)


def brain_of_the_template() -> NDArray[np.bool_]:
    """[k, j, i] of the head's file, which lies on the mask's grid."""
    mask = cast("Any", load_mni152_brain_mask(resolution=1))
    assert np.array_equal(mask.affine, cast("Any", nib.load(MNI_HEAD)).affine)  # pyright: ignore[reportPrivateImportUsage]
    return np.asarray(mask.dataobj).T > 0


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
