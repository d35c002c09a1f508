"""Every export is read back equal: by our import through the API, by highdicom, nibabel and our own reading of the bytes."""

import gzip
import io
import json
import struct
import zipfile
from dataclasses import replace
from typing import Any
from uuid import UUID

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid

from annotomy.archive.volume import VolumeSource, load_source
from annotomy.segmentations.service import NewSegmentation, create_segmentation
from tests.segmentations.placed_series import (
    SEGMENTS,
    Placed,
    Project,
    file_bytes,
    oblique,
    project_with,
    some_masks,
)
from tests.segmentations.test_create import masks_by_highdicom
from tests.support.application import Application
from tests.uploads.test_uploads import upload


class Client:
    """One user's calls."""

    def __init__(self, application: Application, headers: dict[str, str]) -> None:
        self.application, self.headers = application, headers

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.application.client.get(f"/api/v1/segmentations{path}", params=params, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def masks(self, segmentation_id: str, version: int | None = None) -> dict[int, NDArray[np.bool_]]:
        middle = "" if version is None else f"/versions/{version}"
        return decoded((await self.get(f"/{segmentation_id}{middle}/masks")).content)

    async def send(self, placed: Placed, project_id: UUID, data: bytes, **metadata: Any) -> Any:
        told = {
            "project_id": str(project_id),
            "study_instance_uid": placed.study_instance_uid,
            "series_instance_uid": placed.series_instance_uid,
            **metadata,
        }
        return await self.application.client.post(
            "/api/v1/segmentations",
            data={"metadata": json.dumps(told)},
            files={"file": ("masks", data, "application/octet-stream")},
            headers=self.headers,
        )


def decoded(data: bytes) -> dict[int, NDArray[np.bool_]]:
    """As the web app reads it."""
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    voxels = int(np.prod(header["shape_kji"]))
    found: dict[int, NDArray[np.bool_]] = {}
    for segment in header["segments"]:
        bits = np.frombuffer(data, np.uint8, segment["length"], 4 + length + segment["offset"])
        flat = np.unpackbits(bits, count=voxels, bitorder="little").astype(bool)
        found[segment["segment_number"]] = flat.reshape(header["shape_kji"])
    return found


async def started(application: Application, placed: Placed) -> tuple[Project, Client]:
    project = await project_with(application, file_bytes(placed.instances()))
    return project, Client(application, await application.headers(project.admin.name))


async def created(
    application: Application, project: Project, placed: Placed, masks: dict[int, NDArray[np.bool_]]
) -> str:
    source = await load_source(application.services, project.admin, placed.series_instance_uid)
    segments = [segment for segment in SEGMENTS if segment.number in masks]
    new = NewSegmentation(project_id=project.id, source=source, segments=segments, masks=masks, label="Round trip")
    return str(await create_segmentation(application.services, project.admin, new))


def apart(shape_kji: tuple[int, int, int]) -> dict[int, NDArray[np.bool_]]:
    """Without overlap, with an empty segment."""
    masks = some_masks(shape_kji)
    return {**masks, 1: masks[1] & ~masks[2]}


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("form", ["seg", "labelmap-seg", "fractional-seg", "nifti", "nrrd", "png"])
async def test_what_is_exported_is_imported_equal(application: Application, placed: Placed, form: str) -> None:
    project, client = await started(application, placed)
    masks = apart(placed.shape_kji) if form == "labelmap-seg" else some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    exported = await client.get(f"/{segmentation_id}/export", format=form)
    answer = await client.send(placed, project.id, exported.content, label="Again")
    assert answer.status_code == 201, answer.text
    again = answer.json()
    found = await client.masks(again["id"])
    for number, mask in masks.items():
        assert np.array_equal(found[number], mask), (form, number)
    first = (await client.get(f"/{segmentation_id}")).json()
    for one, other in zip(first["segments"], again["segments"], strict=True):
        for name in ("segment_number", "label", "code", "category", "statistics"):
            assert one[name] == other[name], (form, name)


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_the_nifti_lies_where_the_images_lie(application: Application, placed: Placed) -> None:
    project, client = await started(application, placed)
    masks = apart(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    exported = await client.get(f"/{segmentation_id}/export", format="nifti")
    assert exported.headers["content-type"] == "application/gzip"
    assert "round-trip-v1.nii.gz" in exported.headers["content-disposition"]
    image: Any = nib.Nifti1Image.from_bytes(gzip.decompress(exported.content))
    assert np.allclose(image.affine, np.diag([-1, -1, 1, 1]) @ placed.affine_lps, atol=1e-4)
    assert np.allclose(image.get_qform(), image.affine, atol=1e-4)
    values = np.asarray(image.dataobj).transpose(2, 1, 0)
    assert values.dtype == np.uint8
    for number in (1, 2):
        assert np.array_equal(values == number, masks[number])


async def test_a_label_map_seg_is_read_by_highdicom_and_refused_for_overlaps(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    masks = apart(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    data = (await client.get(f"/{segmentation_id}/export", format="labelmap-seg")).content
    assert dcmread(io.BytesIO(data)).SegmentationType == "LABELMAP"
    found = masks_by_highdicom(data, placed)
    assert all(np.array_equal(found[number], masks[number]) for number in masks)
    overlapping = await created(application, project, placed, some_masks(placed.shape_kji))
    refused = await application.client.get(
        f"/api/v1/segmentations/{overlapping}/export?format=labelmap-seg", headers=client.headers
    )
    assert refused.status_code == 422 and "overlap" in refused.json()["detail"]


async def test_png_slices_hold_segment_numbers_and_name_their_images(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    masks = apart(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    data = (await client.get(f"/{segmentation_id}/export", format="png")).content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pixels = np.array(Image.open(io.BytesIO(archive.read("slice-0003.png"))))
        told = json.loads(archive.read("segments.json"))
    assert np.array_equal(pixels == 2, masks[2][2])
    source = await load_source(application.services, project.admin, placed.series_instance_uid)
    assert told["sop_instance_uids"] == [plane.sop_instance_uid for plane in source.planes]


async def test_one_segment_alone_is_exported(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    for form in ("nifti", "seg"):
        data = (await client.get(f"/{segmentation_id}/export", format=form, segment_number=2)).content
        answer = await client.send(placed, project.id, data)
        assert [s["label"] for s in answer.json()["segments"]] == ["해마"]
        [mask] = (await client.masks(answer.json()["id"])).values()
        assert np.array_equal(mask, masks[2])


def nifti_of(labels: NDArray[Any], affine_lps: NDArray[np.float64]) -> bytes:
    """As another program writes it: label map (k, j, i)."""
    image: Any = nib.Nifti1Image(labels.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine_lps)
    return image.to_bytes()


async def test_other_orders_and_mirrored_axes_fall_on_the_same_voxels(application: Application) -> None:
    placed = oblique()
    project, client = await started(application, placed)
    labels = np.zeros(placed.shape_kji, np.int16)
    labels[4:6, 3:5, 2:7] = 1
    labels[5, 0, 0] = 2
    # Slices from the other end, rows mirrored, and the axes in another order: i <- j, j <- k, k <- i.
    flipped = placed.affine_lps.copy()
    flipped[:3, 3] += flipped[:3, 2] * (placed.shape_kji[0] - 1) + flipped[:3, 1] * (placed.shape_kji[1] - 1)
    flipped[:3, 1:3] *= -1
    turned_labels = labels[::-1, ::-1].transpose(1, 2, 0)
    turned_affine = flipped[:, [2, 0, 1, 3]]
    # Only a part of the series.
    part = placed.affine_lps.copy()
    part[:3, 3] = (placed.affine_lps @ [0, 0, 3, 1])[:3]
    for data in (
        nifti_of(labels.astype(np.float32), placed.affine_lps),
        nifti_of(turned_labels, turned_affine),
        nifti_of(labels[3:8], part),
    ):
        answer = await client.send(placed, project.id, data)
        assert answer.status_code == 201, answer.text
        found = await client.masks(answer.json()["id"])
        assert np.array_equal(found[1], labels == 1) and np.array_equal(found[2], labels == 2)


async def test_masks_that_lie_elsewhere_are_refused_by_what_differs(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    labels = np.ones(placed.shape_kji, np.uint8)

    def moved(change: NDArray[np.float64]) -> bytes:
        return nifti_of(labels, placed.affine_lps @ change)

    half, coarse, away, turned = np.eye(4), np.diag([1.2, 1.0, 1.0, 1.0]), np.eye(4), np.eye(4)
    half[0, 3], away[2, 3] = 0.5, 2
    a = 0.1
    turned[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    isotropic = np.linalg.inv(placed.affine_lps) @ turned @ placed.affine_lps
    for data, word in (
        (moved(half), "position"),
        (moved(coarse), "spacing"),
        (moved(away), "outside"),
        (moved(isotropic), "orientation"),
    ):
        answer = await client.send(placed, project.id, data)
        assert answer.status_code == 422, answer.text
        assert answer.json()["type"].endswith("mask-mismatch")
        assert word in answer.json()["detail"]
    assert (await client.get("")).json()["total"] == 0


async def test_a_seg_of_another_frame_of_reference_is_refused(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    other = replace(placed, series_instance_uid=generate_uid(), study_instance_uid=generate_uid())
    instances = other.instances()
    for instance in instances:
        instance.FrameOfReferenceUID = "1.2.3.4"
    from tests.segmentations.placed_series import store

    await store(application.services, project.admin, project.id, file_bytes(instances))
    segmentation_id = await created(application, project, other, some_masks(other.shape_kji))
    data = (await client.get(f"/{segmentation_id}/export", format="seg")).content
    answer = await client.send(placed, project.id, data)
    assert answer.status_code == 422 and "frame of reference" in answer.json()["detail"]


async def test_names_and_codes_of_the_sender_stand_before_those_of_the_file(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    labels = np.zeros(placed.shape_kji, np.uint8)
    labels[0, 0, 0] = 7
    described = [
        {"segment_number": 7, "label": "간", "code": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}},
        {"segment_number": 9, "label": "Not there", "color": "#123456"},
    ]
    answer = await client.send(placed, project.id, nifti_of(labels, placed.affine_lps), segments=described)
    segments = answer.json()["segments"]
    assert [(s["segment_number"], s["label"], s["statistics"]["voxels"]) for s in segments] == [
        (7, "간", 1),
        (9, "Not there", 0),
    ]
    assert segments[0]["code"]["value"] == "10200004" and segments[1]["color"] == "#123456"
    unnamed = await client.send(placed, project.id, nifti_of(labels, placed.affine_lps), segments=described[1:])
    assert unnamed.status_code == 422 and "value 7" in unnamed.json()["detail"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no masks at all", "no DICOM SEG"),
        (b"NRRD0005\ntype: uchar\n\n", "encoding"),
        (b"\x1f\x8b but no gzip", "gzip"),
        (bytes(128) + b"DICM and then nothing", ""),
        (b"PK\x03\x04 but no zip", "ZIP"),
        (b"\x89PNG but no picture", "PNG"),
        (nifti_of(np.full((5, 12, 10), 0.5, np.float32), Placed().affine_lps), "whole numbers"),
    ],
)
async def test_a_file_that_is_no_mask_is_refused_with_a_reason(
    application: Application, data: bytes, words: str
) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    answer = await client.send(placed, project.id, data)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("unreadable-masks")
    assert words in answer.json()["detail"]


async def test_an_image_is_no_segmentation(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    answer = await client.send(placed, project.id, file_bytes(placed.instances())[0])
    assert answer.status_code == 422 and "no DICOM segmentation" in answer.json()["detail"]


async def test_a_seg_in_an_upload_becomes_a_segmentation_once_and_stays_stored_when_it_cannot(
    application: Application,
) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    own = (await client.get(f"/{await created(application, project, placed, masks)}/export")).content
    foreign = dcmread(io.BytesIO(own))
    foreign.SOPInstanceUID = foreign.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    foreign.SeriesInstanceUID = generate_uid()
    elsewhere = dcmread(io.BytesIO(own))
    elsewhere.SOPInstanceUID = elsewhere.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    elsewhere.SeriesInstanceUID = generate_uid()
    elsewhere.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("1-own.dcm", own)
        archive.writestr("2-foreign.dcm", file_bytes([foreign])[0])
        archive.writestr("3-elsewhere.dcm", file_bytes([elsewhere])[0])

    async def send() -> dict[str, Any]:
        found = await upload(application, client.headers, packed.getvalue(), project_id=str(project.id))
        assert found["state"] == "stored", found
        return {file["path"]: file for file in found["files"]}

    first, again = await send(), await send()
    made = first["2-foreign.dcm"]["made"]["segmentation_id"]
    found = await client.masks(made)
    assert all(np.array_equal(found[number], masks[number]) for number in masks)
    assert again["2-foreign.dcm"]["made"] == {"segmentation_id": made}
    assert first["3-elsewhere.dcm"]["made"] is None and first["3-elsewhere.dcm"]["state"] == "stored"
    assert first["3-elsewhere.dcm"]["problem"]["status"] == 404, "the images that it shows are not here"
    async with application.services.db.read(project.admin) as tx:
        assert await tx.fetchval("select count(*) from segmentations") == 2, "our own export is no new segmentation"


async def test_a_seg_that_arrived_in_the_archive_becomes_a_segmentation_once(application: Application) -> None:
    from tests.segmentations.placed_series import store

    placed = Placed()
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    foreign = dcmread(
        io.BytesIO((await client.get(f"/{await created(application, project, placed, masks)}/export")).content)
    )
    foreign.SOPInstanceUID = foreign.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    foreign.SeriesInstanceUID = generate_uid()
    await store(application.services, project.admin, project.id, file_bytes([foreign]))
    body = {"project_id": str(project.id), "sop_instance_uid": str(foreign.SOPInstanceUID)}
    at = "/api/v1/segmentations/from-archive"
    first, again = [await application.client.post(at, json=body, headers=client.headers) for _ in range(2)]
    assert first.status_code == 201, first.text
    assert first.json()["id"] == again.json()["id"] and first.json()["label"] == "Round trip"
    assert first.json()["sop_instance_uid"] == foreign.SOPInstanceUID
    found = await client.masks(first.json()["id"])
    assert all(np.array_equal(found[number], masks[number]) for number in masks)
    async with application.services.db.read(project.admin) as tx:
        assert await tx.fetchval("select count(*) from series where modality = 'SEG'") == 2, "none is written again"
    image = {
        **body,
        "sop_instance_uid": placed_image(
            await load_source(application.services, project.admin, placed.series_instance_uid)
        ),
    }
    assert (await application.client.post(at, json=image, headers=client.headers)).status_code == 422
    stranger = await application.headers("stranger")
    assert (await application.client.post(at, json=body, headers=stranger)).status_code == 404


async def test_a_part_of_the_masks_is_read_by_slices_and_segments(application: Application) -> None:
    placed = replace(Placed(), shape_kji=(37, 6, 7))
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, masks)
    for first, last in ((0, 0), (3, 9), (14, 17), (36, 36), (0, 36)):
        answer = await client.get(
            f"/{segmentation_id}/masks", first_slice=first, last_slice=last, segment_number=[1, 3]
        )
        found = decoded(answer.content)
        assert set(found) == {1, 3}
        assert all(np.array_equal(found[number], masks[number][first : last + 1]) for number in found)
    (length,) = struct.unpack_from("<I", answer.content)
    one = (await client.get(f"/{segmentation_id}/masks", first_slice=20)).content
    header = json.loads(one[4 : 4 + struct.unpack_from("<I", one)[0]])
    assert length and header["first_slice"] == 20 and header["shape_kji"] == [1, 6, 7]
    assert np.allclose(np.array(header["affine_lps"]).reshape(4, 4)[:3, 3], (placed.affine_lps @ [0, 0, 20, 1])[:3])
    for wrong in ("first_slice=37", "first_slice=9&last_slice=3"):
        at = f"/api/v1/segmentations/{segmentation_id}/masks?{wrong}"
        assert (await application.client.get(at, headers=client.headers)).status_code == 400


def placed_image(source: VolumeSource) -> str:
    return source.planes[0].sop_instance_uid
