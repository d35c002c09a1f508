"""Pictures over WADO-RS: size, region, window, annotation, colour profile, form, and who gets several of them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pydicom import dcmread
from pydicom.dataset import Dataset

from annotomy.dicom.pixels import PixelError, apply_window
from annotomy.dicom.rendering import Presentation, Viewport, picture_of
from annotomy.dicomweb import rendered as rendered_routes
from annotomy.dicomweb.rendered import presentation_of
from annotomy.errors import BadRequest
from tests.dicomweb.test_dicomweb import stow
from tests.support.application import Application
from tests.support.dicom_files import ct_series


def grey(values: np.ndarray[Any, Any]) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.Modality, dataset.PatientName = "MONOCHROME2", "CT", "Test^Anna"
    dataset.Rows, dataset.Columns = values.shape
    return dataset


def shown(values: np.ndarray[Any, Any], **fields: Any) -> np.ndarray[Any, Any]:
    data = picture_of(grey(values), values, Presentation("image/png", window=(128, 256), **fields))
    return np.asarray(Image.open(io.BytesIO(data)))


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_a_region_is_cut_out_and_turned_round_where_its_side_is_negative() -> None:
    region = shown(RAMP, viewport=Viewport(4, 4, (4, 8, 4, 4)))
    assert np.array_equal(region, RAMP[8:12, 4:8])
    turned = shown(RAMP, viewport=Viewport(4, 4, (4, 8, -4, -4)))
    assert np.array_equal(turned, RAMP[8:12, 4:8][::-1, ::-1])
    relative = shown(RAMP, viewport=Viewport(None, None, (0.25, 0.5, 0.25, 0.25), relative=True))
    assert np.array_equal(relative, RAMP[8:12, 4:8])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
def test_a_picture_fills_its_viewport_and_keeps_its_proportion(
    width: int, height: int, rows: int, columns: int
) -> None:
    made = shown(np.zeros((rows, columns), np.uint8), viewport=Viewport(width, height))
    assert made.shape[1] <= width
    assert made.shape[0] <= height
    assert made.shape[1] == width or made.shape[0] == height
    scale = min(width / columns, height / rows)
    assert abs(made.shape[1] - columns * scale) < 1
    assert abs(made.shape[0] - rows * scale) < 1


def test_a_region_outside_of_the_frame_is_refused() -> None:
    with pytest.raises(PixelError):
        shown(RAMP, viewport=Viewport(4, 4, (14, 0, 4, 4)))


def test_windows_are_those_of_the_standard() -> None:
    values = np.array([-100.0, 0.0, 40.0, 100.0], np.float32)
    # PS3.3 C.11.2.1.2.1: centre 0, width 100 -> y = ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
    assert apply_window(values, 0, 100).tolist() == [0, 129, 232, 255]
    assert apply_window(values, 0, 100, "linear-exact").tolist() == [0, 128, 230, 255]
    assert apply_window(values, 0, 100, "sigmoid").tolist() == [5, 128, 212, 250]


def test_annotation_is_burned_in_and_says_who_it_is_only_when_asked() -> None:
    blank = np.zeros((128, 128), np.uint8)
    assert not shown(blank).any()
    technique, patient = shown(blank, annotation=("technique",)), shown(blank, annotation=("patient",))
    assert min(technique.max(), patient.max()) > 200
    assert not np.array_equal(technique, patient)


def test_a_colour_picture_carries_its_profile_or_is_turned_into_srgb() -> None:
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored = "RGB", 8
    lab: Any = ImageCms.createProfile("sRGB")
    dataset.ICCProfile = ImageCms.ImageCmsProfile(lab).tobytes()
    values = np.full((4, 4, 3), (200, 100, 50), np.uint8)

    def made(icc_profile: Any) -> Image.Image:
        presentation = Presentation("image/png", icc_profile=icc_profile)
        return Image.open(io.BytesIO(picture_of(dataset, values, presentation)))

    assert "icc_profile" not in made("no").info
    assert made("yes").info["icc_profile"] == dataset.ICCProfile
    assert "icc_profile" in made("srgb").info
    assert np.abs(np.asarray(made("srgb")).astype(int) - values).max() <= 1
    dataset.ICCProfile = b"no profile"
    with pytest.raises(PixelError):
        made("srgb")


@pytest.mark.parametrize(
    "query",
    [
        {"window": "40"}, {"window": "40,0"}, {"window": "40,nan"}, {"window": "40,400,cubic"}, {"viewport": "10"},
        {"viewport": "0,10"}, {"viewport": "10,100000"}, {"viewport": "10,10,0,0,0,1"}, {"quality": "0"},
        {"quality": "101"}, {"annotation": "everything"}, {"iccprofile": "adobergb"},
    ],
)  # fmt: skip
def test_a_value_that_a_parameter_does_not_take_is_refused(query: Mapping[str, str]) -> None:
    with pytest.raises(BadRequest):
        presentation_of(query, "image/png")


async def test_pictures_come_alone_or_in_parts_as_accepted(application: Application) -> None:
    headers = await application.headers("owner")
    files = ct_series(3)
    first = dcmread(io.BytesIO(files[0]))
    await stow(application, headers, files)
    series = f"/dicom-web/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}"
    instance = f"{series}/instances/{first.SOPInstanceUID}"

    async def get(path: str, accept: str) -> Any:
        return await application.client.get(path, headers=headers | {"Accept": accept})

    small = await get(f"{instance}/rendered?viewport=8,8&window=40,400,linear-exact&quality=50", "image/*")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (8, 8)
    assert Image.open(io.BytesIO((await get(f"{instance}/frames/1/rendered", "image/gif")).content)).format == "GIF"
    assert (await get(f"{instance}/rendered", "image/webp")).status_code == 406
    assert (await get(f"{instance}/rendered", "image/webp;q=1, image/png;q=0.5")).headers["content-type"] == "image/png"
    assert (await get(f"{instance}/rendered?accept=image/png", "image/jpeg")).headers["content-type"] == "image/png"
    assert (await get(f"{series}/rendered", "image/png")).status_code == 406
    for path, count in ((f"{series}/rendered", 3), (instance.split("/series")[0] + "/rendered", 3)):
        parts = await get(path, 'multipart/related; type="image/png"')
        assert parts.headers["content-type"].startswith('multipart/related; type="image/png"')
        assert parts.content.count(b"\x89PNG\r\n") == count
    one = await get(f"{instance}/frames/1/rendered", 'multipart/related; type="image/jpeg"')
    assert one.headers["content-type"].startswith("multipart/related")
    for path in (instance, f"{instance}/frames/1", series):
        thumbnail = await get(f"{path}/thumbnail?viewport=4,4", "image/png")
        assert Image.open(io.BytesIO(thumbnail.content)).size == (4, 4)
    stranger = await application.headers("stranger")
    for path in (f"{series}/rendered", f"{instance}/frames/1/thumbnail"):
        assert (await application.client.get(path, headers=stranger)).status_code == 404


async def test_a_picture_is_made_once_and_shown_only_to_who_may_see_it(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await application.headers("owner")
    files = ct_series(2)
    await stow(application, headers, files)
    first = dcmread(io.BytesIO(files[0]))
    base = (
        f"/dicom-web/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}/instances/{first.SOPInstanceUID}"
    )
    for path in (f"{base}/rendered?window=10,20", f"{base}/thumbnail", f"{base}/frames/1/rendered?accept=image/png"):
        made = await application.client.get(path, headers=headers)
        assert made.status_code == 200, made.text
        with monkeypatch.context() as patched:
            patched.setattr(rendered_routes, "render", None)  # a call would fail
            again = await application.client.get(path, headers=headers)
            assert (again.content, again.headers["etag"]) == (made.content, made.headers["etag"])
            stranger = await application.headers("stranger")
            assert (await application.client.get(path, headers=stranger)).status_code == 404
            known = {"If-None-Match": made.headers["etag"]}
            unchanged = await application.client.get(path, headers={**headers, **known})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            assert (await application.client.get(path, headers={**stranger, **known})).status_code == 404
    other = await application.client.get(f"{base}/rendered?window=10,21", headers=headers)
    assert other.headers["etag"] != made.headers["etag"]
