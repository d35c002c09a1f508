"""Judges that we did not write: dcmqi reads our SEG; SEG and NRRD of dcmqi and highdicom are read by us, voxel for voxel."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from annotomy.segmentations import nrrd_file
from tests.segmentations.placed_series import Placed, file_bytes, oblique, project_with, some_masks
from tests.segmentations.test_interchange import Client, created, started
from tests.support.application import Application
from tests.support.shared_data import shared_data_folder

DCMQI = shutil.which("segimage2itkimage") or shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(DCMQI is None, reason="dcmqi is not installed; `./run test --referees` brings it")
@pytest.mark.parametrize("placed", [Placed(), oblique(), Placed(thickness_mm=5.0)], ids=["axial", "oblique", "trap"])
async def test_dcmqi_reads_our_seg_voxel_equal(application: Application, placed: Placed, tmp_path: Path) -> None:
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    file = tmp_path / "seg.dcm"
    file.write_bytes((await client.get(f"/{segmentation_id}/export", format="seg")).content)
    assert DCMQI is not None
    told = subprocess.run(
        [DCMQI, "--inputDICOM", str(file), "--outputDirectory", str(tmp_path), "--outputType", "nrrd"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for number in (1, 2):
        grid = nrrd_file.read_nrrd((tmp_path / f"{number}.nrrd").read_bytes())
        k, j, i = np.nonzero(grid.layers[0])
        voxels = np.stack([i, j, k, np.ones_like(i)])
        found = np.rint(np.linalg.solve(placed.affine_lps, grid.affine_lps @ voxels))[:3].astype(int)
        assert np.abs(np.linalg.solve(placed.affine_lps, grid.affine_lps @ voxels)[:3] - found).max() < 1e-3
        assert {tuple(v) for v in found.T[:, ::-1]} == {tuple(v) for v in np.argwhere(masks[number])}


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_rt_utils_reads_our_structure_set_voxel_equal(
    application: Application, placed: Placed, tmp_path: Path
) -> None:
    """It fills polygons with their border pixels, so that our contours, which run half a pixel outside, hold a margin there:
    what it must agree on is every voxel of ours, and nothing that is further away than that border. It mixes rows and columns
    up, their spacing as well, so that image and pixels are square."""
    placed = replace(placed, shape_kji=(5, 12, 12), spacing_kji_mm=(2.5, 0.75, 0.75))
    rt_utils = pytest.importorskip("rt_utils", reason="rt-utils is not installed; `./run test --referees` brings it")
    images = file_bytes(placed.instances())
    project = await project_with(application, images)
    client = Client(application, await application.headers(project.admin.name))
    whole = np.zeros(placed.shape_kji, np.bool_)
    whole[1:4, 2:9, 1:7] = True
    whole[2, 4:6, 3:5] = False
    segmentation_id = await created(application, project, placed, {2: whole})
    series, structures = tmp_path / "series", tmp_path / "rt.dcm"
    series.mkdir()
    for number, data in enumerate(images):
        (series / f"{number}.dcm").write_bytes(data)
    structures.write_bytes((await client.get(f"/{segmentation_id}/export", format="rtstruct")).content)
    read: Any = rt_utils.RTStructBuilder.create_from(str(series), str(structures))
    assert read.get_roi_names() == ["해마"]
    found = np.moveaxis(read.get_roi_mask_by_name("해마"), -1, 0)
    border = np.zeros_like(whole)
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            border |= np.roll(whole, (rows, columns), (1, 2))
    assert found.shape == whole.shape
    assert not np.any(whole & ~found) and not np.any(found & ~border)


async def _imported(application: Application, images: list[Path], file: Path) -> tuple[dict[str, Any], Client]:
    project = await project_with(application, [image.read_bytes() for image in images])
    client = Client(application, await application.headers(project.admin.name))
    header = dcmread(images[0], stop_before_pixels=True)
    placed = Placed(study_instance_uid=str(header.StudyInstanceUID), series_instance_uid=str(header.SeriesInstanceUID))
    answer = await client.send(placed, project.id, file.read_bytes())
    assert answer.status_code == 201, answer.text
    return answer.json(), client


@pytest.mark.parametrize(
    ("images", "file"),
    [
        ("ct-3slice/*.dcm", "liver.dcm"),
        ("ct-3slice/*.dcm", "partial_overlaps.dcm"),
        ("24x38x3/image/*.dcm", "24x38x3/seg/label.seg"),
        ("24x38x3/image/*.dcm", "sparse-labelmap-noppv.dcm"),
        ("24x38x3/image/*.dcm", "sparse-labelmap-ppv5.dcm"),
    ],
)
async def test_a_seg_of_dcmqi_is_imported_as_highdicom_reads_it(
    application: Application, images: str, file: str
) -> None:
    folder = shared_data_folder() / "derived/dcmqi/segmentations"
    told, client = await _imported(application, sorted(folder.glob(images)), folder / file)
    found = await client.masks(told["id"])
    seg = hd.seg.segread(folder / file)
    for number in seg.segment_numbers:
        if number == 0:
            continue
        volume = seg.get_volume(segment_numbers=[number], combine_segments=False, rescale_fractional=False)
        affine_of_ijk = volume.affine[:, [2, 1, 0, 3]]
        k, j, i = np.nonzero(volume.array[..., 0])
        places = affine_of_ijk @ np.stack([i, j, k, np.ones_like(i)])
        ours = np.linalg.solve(np.array(told["affine_lps"]).reshape(4, 4), places)[:3]
        assert np.abs(ours - np.rint(ours)).max(initial=0) < 0.05
        assert {tuple(v) for v in np.rint(ours).astype(int).T[:, ::-1]} == {
            tuple(v) for v in np.argwhere(found[number])
        }
        described = next(s for s in told["segments"] if s["segment_number"] == number)
        assert described["label"] == seg.get_segment_description(number).segment_label


async def test_overlaps_of_dcmqi_equal_its_nrrd_twins(application: Application) -> None:
    folder = shared_data_folder() / "derived/dcmqi/segmentations"
    told, client = await _imported(application, sorted(folder.glob("ct-3slice/*.dcm")), folder / "partial_overlaps.dcm")
    found = await client.masks(told["id"])
    affine = np.array(told["affine_lps"]).reshape(4, 4)
    total = 0
    for n in (1, 2, 3):
        grid = nrrd_file.read_nrrd((folder / f"partial_overlaps-{n}.nrrd").read_bytes())
        for value in np.unique(grid.layers[0])[1:]:
            k, j, i = np.nonzero(grid.layers[0] == value)
            places = np.linalg.solve(affine, grid.affine_lps @ np.stack([i, j, k, np.ones_like(i)]))[:3]
            twin = {tuple(v) for v in np.rint(places).astype(int).T[:, ::-1]}
            assert any(twin == {tuple(v) for v in np.argwhere(mask)} for mask in found.values()), (n, value)
            total += 1
    assert total == len(found) == 5
