"""A series becomes a volume whose geometry comes from positions alone, or a problem says what is irregular."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID, CTImageStorage, generate_uid

from annotomy.archive import volume
from annotomy.archive.volume import VolumeProblem, VolumeTooLarge, load_source, load_volume
from annotomy.dicom.geometry import GeometryError, Plane, arrange, planes_of
from annotomy.errors import NotFound
from tests.segmentations.placed_series import Placed, file_bytes, oblique, project_with
from tests.support.application import Application
from tests.support.shared_data import shared_data_folder


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_values_are_in_modality_units_and_slices_in_the_order_of_their_positions(
    application: Application, placed: Placed
) -> None:
    project = await project_with(application, file_bytes(placed.instances()))
    loaded = await load_volume(application.services, project.admin, placed.series_instance_uid)
    assert loaded.volume.values.dtype == np.float32
    assert np.array_equal(loaded.volume.values, placed.values().astype(np.float32) - 1024)
    assert np.allclose(loaded.volume.affine_lps, placed.affine_lps, atol=1e-6)
    assert loaded.volume.modality == "CT"
    assert loaded.source.study_instance_uid == placed.study_instance_uid
    assert [str(h.SOPInstanceUID) for h in loaded.source.headers] == [p.sop_instance_uid for p in loaded.source.planes]


async def test_a_series_that_one_may_not_see_is_not_there(application: Application) -> None:
    placed = Placed()
    await project_with(application, file_bytes(placed.instances()))
    stranger = await application.add_user("stranger")
    with pytest.raises(NotFound):
        await load_source(application.services, stranger, placed.series_instance_uid)


def _without_position(datasets: list[FileDataset]) -> None:
    del datasets[1].ImagePositionPatient


def _one_missing(datasets: list[FileDataset]) -> None:
    del datasets[2]


def _one_moved(datasets: list[FileDataset]) -> None:
    datasets[2].ImagePositionPatient[2] += 0.9


def _one_turned(datasets: list[FileDataset]) -> None:
    datasets[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def _two_echoes(datasets: list[FileDataset]) -> None:
    for dataset in datasets[1:3]:
        dataset.ImagePositionPatient = datasets[0].ImagePositionPatient


def _tilted(datasets: list[FileDataset]) -> None:
    for k, dataset in enumerate(datasets):
        dataset.ImagePositionPatient[1] += 0.6 * k


def _one_shifted(datasets: list[FileDataset]) -> None:
    datasets[2].ImagePositionPatient[0] += 5


def _other_pixel_spacing(datasets: list[FileDataset]) -> None:
    datasets[1].PixelSpacing = [1, 1]


def _colour(datasets: list[FileDataset]) -> None:
    datasets[0].PhotometricInterpretation = "PALETTE COLOR"


@pytest.mark.parametrize(
    ("harm", "slug"),
    [
        (_without_position, "not-a-volume"),
        (_one_missing, "missing-slices"),
        (_one_moved, "irregular-spacing"),
        (_one_turned, "mixed-orientation"),
        (_two_echoes, "duplicate-position"),
        (_tilted, "gantry-tilt"),
        (_one_shifted, "not-a-volume"),
        (_other_pixel_spacing, "irregular-spacing"),
        (_colour, "not-a-volume"),
    ],
)
async def test_a_series_that_is_no_regular_volume_is_refused_by_name(
    application: Application, harm: Callable[[list[FileDataset]], None], slug: str
) -> None:
    placed = Placed()
    datasets = placed.instances()
    harm(datasets)
    project = await project_with(application, file_bytes(datasets))
    with pytest.raises(VolumeProblem) as caught:
        await load_volume(application.services, project.admin, placed.series_instance_uid)
    assert caught.value.slug == slug


async def test_a_volume_over_the_limit_is_refused_before_its_pixels_are_read(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = Placed()
    project = await project_with(application, file_bytes(placed.instances()))
    monkeypatch.setattr(volume, "MAX_VOXELS", int(np.prod(placed.shape_kji)) - 1)
    monkeypatch.delattr(volume, "_decode_into")
    with pytest.raises(VolumeTooLarge):
        await load_volume(application.services, project.admin, placed.series_instance_uid)


async def test_an_enhanced_multi_frame_series_is_sorted_by_the_positions_of_its_frames(
    application: Application,
) -> None:
    placed = replace(Placed(), shape_kji=(4, 6, 5))
    dataset = enhanced(placed, order=[2, 0, 3, 1])
    project = await project_with(application, file_bytes([dataset]))
    loaded = await load_volume(application.services, project.admin, placed.series_instance_uid)
    assert np.allclose(loaded.volume.affine_lps, placed.affine_lps, atol=1e-6)
    assert np.array_equal(loaded.volume.values, placed.values() * 2.0 - 100)
    assert [plane.frame_number for plane in loaded.source.planes] == [2, 4, 1, 3]


def enhanced(placed: Placed, order: list[int]) -> FileDataset:
    """An enhanced CT whose frame n shows slice order[n]."""
    from pydicom.dataset import Dataset

    [first, *_] = instances = placed.instances()
    dataset = dcmread(io.BytesIO(file_bytes([first])[0]))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2.1")
    measures, orientation, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "2", "-100", "HU"
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [rescale]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for k in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = instances[k].ImagePositionPatient
        frame.PlanePositionSequence = [position]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = b"".join(placed.values()[k].tobytes() for k in order)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        delattr(dataset, keyword)
    return dataset


unit = st.floats(-1, 1).filter(lambda v: abs(v) > 1e-3)


@settings(max_examples=200, deadline=None)
@given(
    quaternion=st.tuples(unit, unit, unit, unit),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    slices=st.integers(2, 40),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_orientation_order_and_spacing_is_found_again(
    quaternion: tuple[float, float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    slices: int,
    shuffle: "np.random.RandomState",
) -> None:
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_quat(quaternion).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * np.array(spacing), origin
    order = list(range(slices))
    shuffle.shuffle(order)
    planes = [
        Plane(
            tuple(np.round((affine @ [0, 0, k, 1])[:3], 4)),
            tuple(np.round([*axes[:, 0], *axes[:, 1]], 6)),
            spacing[1], spacing[0], 7, 9, None,
        )
        for k in order
    ]  # fmt: skip
    found = arrange(planes)
    assert [order[n] for n in found.order] == list(range(slices))
    assert found.shape_kji == (slices, 7, 9)
    assert np.allclose(found.affine_lps, affine, atol=2e-3 * max(1.0, slices / 20))


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_still_regular() -> None:
    planes = [Plane((0, 0, round(0.625 * k, 1)), (1, 0, 0, 0, 1, 0), 1, 1, 4, 4, 0.625) for k in range(60)]
    assert np.linalg.norm(arrange(planes).affine_lps[:3, 2]) == pytest.approx(0.625, abs=2e-3)


def test_a_single_image_takes_its_thickness_and_is_refused_without_one() -> None:
    plane = Plane((0, 0, 0), (1, 0, 0, 0, 1, 0), 1, 1, 4, 4, 3.0)
    assert arrange([plane]).affine_lps[2, 2] == 3
    with pytest.raises(GeometryError):
        arrange([replace(plane, thickness_mm=None)])


async def test_the_spacing_of_a_real_abdomen_comes_from_positions_not_from_its_thickness(
    application: Application,
) -> None:
    """Thickness 3 mm, spacing 2 mm; published without UIDs, which the test fills in."""
    datasets = [dcmread(file) for file in sorted((shared_data_folder() / "ct/totalseg-abdomen").rglob("CT.*"))]
    study, series = generate_uid(), generate_uid()
    for dataset in datasets:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study, series, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    project = await project_with(application, file_bytes(datasets))
    loaded = await load_volume(application.services, project.admin, series)
    assert float(datasets[0].SliceThickness) == 3
    assert np.linalg.norm(loaded.volume.affine_lps[:3, 2]) == pytest.approx(2.0, abs=1e-3)
    assert loaded.volume.values.shape[0] == len(datasets)
    assert -1100 <= loaded.volume.values.min() < -900


def test_a_real_scout_beside_its_slices_is_told() -> None:
    files = sorted((shared_data_folder() / "ct/philips-phantom-tilt").rglob("I*"))
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    axial = [plane for h in headers if h.ImageType[2] == "AXIAL" for plane in planes_of(h)]
    scout = [plane for h in headers if h.ImageType[2] == "LOCALIZER" for plane in planes_of(h)]
    assert np.linalg.norm(arrange(axial).affine_lps[:3, 2]) == pytest.approx(5.0)
    with pytest.raises(GeometryError) as caught:
        arrange([*axial, *scout])
    assert caught.value.slug == "mixed-orientation"
