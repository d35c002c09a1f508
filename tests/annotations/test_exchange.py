"""Annotations leave as JSON, CSV, COCO and DICOM SR, and come back; readers that we did not write read our SR."""

import csv
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.annotations.conftest import ANNOTATIONS, Team
from tests.support.shared_data import shared_data_folder
from tests.uploads.test_uploads import upload

SHAPES: dict[str, list[list[float]]] = {
    "point": [[10.5, 12.25]],
    "probe": [[3, 4]],
    "length": [[10, 20], [40, 20]],
    "bidirectional": [[10, 10], [14, 10], [10, 5], [10, 25]],
    "angle": [[20, 10], [10, 10], [10, 30]],
    "cobb_angle": [[5, 5], [25, 6], [5, 30], [25, 26]],
    "rectangle": [[5, 5], [15, 5], [15, 12], [5, 12]],
    "ellipse": [[10, 20], [30, 20], [20, 14], [20, 26]],
    "polygon": [[5, 5], [20, 8], [25, 25], [8, 20]],
    "freehand": [[5, 5], [20, 8], [25, 25]],
    "arrow": [[12, 13], [30, 31]],
}
LABEL = {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}


async def draw_all(team: Team) -> dict[str, dict[str, Any]]:
    """One of each shape, a key image and a label of the whole study."""
    made = {
        kind: await team.create(
            geometry={"type": kind, "space": "pixel", "points": points}, label=LABEL, description=f"드로잉 {kind}"
        )
        for kind, points in SHAPES.items()
    }
    made["key_image"] = await team.create(kind="key_image", geometry={"type": "none"}, label="best slice")
    made["label"] = await team.create(
        kind="label",
        geometry={"type": "none"},
        label=LABEL,
        series_instance_uid=None,
        sop_instance_uid=None,
        frame_number=None,
    )
    return made


async def export(team: Team, form: str, who: str = "viewer", **query: Any) -> Any:
    query = {"project_id": team.project_id, "study_instance_uid": team.study, "format": form} | query
    answer = await team.client.get(f"{ANNOTATIONS}/export", params=query, headers=team.people[who])
    assert answer.status_code == 200, answer.text
    return answer


async def other_project(team: Team) -> str:
    project = (await team.client.post("/api/v1/projects", json={"name": "second"}, headers=team.people["owner"])).json()
    answer = await team.client.post(
        f"/api/v1/projects/{project['id']}/studies",
        json={"study_instance_uid": team.study},
        headers=team.people["owner"],
    )
    assert answer.status_code == 201, answer.text
    return project["id"]


async def take_in(team: Team, project_id: str, content: bytes, media_type: str, **query: Any) -> dict[str, Any]:
    answer = await team.client.post(
        f"{ANNOTATIONS}/import", params={"project_id": project_id} | query, content=content,
        headers=team.people["owner"] | {"Content-Type": media_type},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return answer.json()


def report(answer: Any) -> Dataset:
    return dcmread(io.BytesIO(answer.content))


async def test_highdicom_reads_our_report(team: Team) -> None:
    made = await draw_all(team)
    answer = await export(team, "sr")
    assert answer.headers["content-type"].startswith("application/dicom")
    assert (answer.headers["annotomy-included"], answer.headers["annotomy-left-out"]) == ("13", "0")
    read = hd.sr.Comprehensive3DSR.from_dataset(report(answer))
    content: Any = read.content
    regions = {str(g.tracking_uid): g for g in content.get_planar_roi_measurement_groups()}
    assert set(regions) == {
        made[kind]["tracking_uid"] for kind in ("point", "probe", "rectangle", "ellipse", "polygon", "freehand")
    }
    ellipse = regions[made["ellipse"]["tracking_uid"]]
    assert ellipse.roi.graphic_type == hd.sr.GraphicTypeValues.ELLIPSE
    assert ellipse.roi.value.tolist() == SHAPES["ellipse"]
    assert ellipse.finding_type == hd.sr.CodedConcept("27925004", "SCT", "Nodule")
    by_name = {m["name"]: m for m in made["polygon"]["measurements"]}
    told = {
        m.name.meaning: (m.value, m.unit.value) for m in regions[made["polygon"]["tracking_uid"]].get_measurements()
    }
    assert told["Area"] == (pytest.approx(by_name["area"]["value"]), "mm2")
    assert told["Mean"] == (pytest.approx(by_name["mean"]["value"]), "[hnsf'U]")
    lines = {str(g.tracking_uid): g for g in content.get_image_measurement_groups()}
    [length] = lines[made["length"]["tracking_uid"]].get_measurements()
    assert (length.value, length.unit.value) == (22.5, "mm")
    assert length.referenced_coordinates[0].value.tolist() == SHAPES["length"]
    assert lines[made["key_image"]["tracking_uid"]].source_images[0].referenced_sop_instance_uid == team.sops[0]


async def test_a_report_comes_back_as_it_was_drawn(team: Team) -> None:
    made = await draw_all(team)
    content = (await export(team, "sr")).content
    second = await other_project(team)
    answer = await take_in(team, second, content, "application/dicom")
    assert (answer["succeeded"], answer["failed"]) == (13, 0), answer
    query = {"project_id": second, "limit": 100}
    back = {one["tracking_uid"]: one for one in (await team.get("", "owner", **query)).json()["items"]}
    for kind, one in made.items():
        found = back[one["tracking_uid"]]
        for member in ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "label", "description"):
            assert found[member] == one[member], (kind, member)
        if kind == "bidirectional":  # the longer axis comes first
            one["geometry"]["points"] = SHAPES[kind][2:] + SHAPES[kind][:2]
        assert found["geometry"]["type"] == one["geometry"]["type"], kind
        assert found["geometry"].get("points", []) == [pytest.approx(p) for p in one["geometry"].get("points", [])], (
            kind
        )
        values = {m["name"]: (pytest.approx(m["value"], rel=1e-5), m["unit"]) for m in one["measurements"]}
        assert {m["name"]: (m["value"], m["unit"]) for m in found["measurements"]} == values, kind
    again = await take_in(team, second, content, "application/dicom")
    assert {result["status"] for result in again["results"]} == {200}
    assert (await team.get("", "owner", **query)).json()["total"] == 13
    history = (await team.get(f"/{back[made['length']['tracking_uid']]['id']}/versions", "owner")).json()["items"]
    assert history[0]["action"] == "import"


async def test_a_report_is_stored_in_the_archive_and_read_from_there(team: Team) -> None:
    await team.create()
    query = {"project_id": team.project_id, "study_instance_uid": team.study}
    stored = await team.client.post(f"{ANNOTATIONS}/export/sr", params=query, headers=team.people["owner"])
    assert stored.status_code == 201, stored.text
    sop = stored.json()["sop_instance_uid"]
    found = await team.client.get(
        f"/dicom-web/studies/{team.study}/instances", params={"SOPInstanceUID": sop}, headers=team.people["viewer"]
    )
    assert found.json()[0]["00080016"]["Value"] == ["1.2.840.10008.5.1.4.1.1.88.34"]
    second = await other_project(team)
    answer = await take_in(team, second, b"", "application/json", sop_instance_uid=sop)
    assert answer["succeeded"] == 1
    denied = await team.client.post(f"{ANNOTATIONS}/export/sr", params=query, headers=team.people["viewer"])
    assert denied.status_code == 403


async def test_a_report_in_an_upload_becomes_annotations_once_and_stays_stored_when_it_cannot(team: Team) -> None:
    await team.create()
    await team.create(geometry={"type": "probe", "space": "pixel", "points": [[3, 4]]})
    sent = report(await export(team, "sr"))
    sent.SOPInstanceUID = sent.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    sent.SeriesInstanceUID = generate_uid()
    second = await other_project(team)
    first = await upload(team.application, team.people["owner"], file_of(sent), project_id=second)
    assert first["files"][0]["state"] == "stored"
    assert first["files"][0]["made"] == {"created": 2, "known": 0, "refused": 0}
    again = await upload(team.application, team.people["owner"], file_of(sent), project_id=second)
    assert again["files"][0]["state"] == "already"
    assert again["files"][0]["made"] == {"created": 0, "known": 2, "refused": 0}
    listed = await team.get("", "owner", project_id=second, limit=100)
    assert listed.json()["total"] == 2
    del sent.ContentSequence
    sent.SOPInstanceUID = sent.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    odd = await upload(team.application, team.people["owner"], file_of(sent), project_id=second)
    assert (odd["state"], odd["files"][0]["state"], odd["files"][0]["made"]) == ("stored", "stored", None)
    assert odd["files"][0]["problem"]["type"].startswith("urn:annotomy:problem:")
    found = await team.client.get(
        f"/dicom-web/studies/{team.study}/instances",
        params={"SOPInstanceUID": str(sent.SOPInstanceUID)},
        headers=team.people["owner"],
    )
    assert len(found.json()) == 1, "the object is kept whatever became of its import"


def file_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dcmtk is not installed")
async def test_dcmtk_accepts_our_report(team: Team, tmp_path: Path) -> None:
    await draw_all(team)
    (tmp_path / "report.dcm").write_bytes((await export(team, "sr")).content)
    dump = subprocess.run(["dsrdump", tmp_path / "report.dcm"], capture_output=True, text=True, check=False)
    assert dump.returncode == 0, dump.stderr
    assert "Imaging Measurement Report" in dump.stdout
    assert not [line for line in dump.stderr.splitlines() if line.startswith(("E:", "F:"))], dump.stderr


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
async def test_dicom3tools_find_no_error_in_our_report(team: Team, tmp_path: Path) -> None:
    await draw_all(team)
    (tmp_path / "report.dcm").write_bytes((await export(team, "sr")).content)
    told = subprocess.run(["dciodvfy", tmp_path / "report.dcm"], capture_output=True, text=True, check=False)
    errors = [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]
    assert errors == []


async def test_a_presentation_state_draws_on_the_images(team: Team, tmp_path: Path) -> None:
    made = await draw_all(team)
    arrow = {"type": "arrow", "space": "pixel", "points": [[12, 13], [30, 31]]}
    await team.create(geometry=arrow, description="look here")
    answer = await export(team, "gsps")
    assert (answer.headers["annotomy-included"], answer.headers["annotomy-left-out"]) == ("12", "2")
    state = report(answer)
    assert state.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.1"
    drawn = {
        graphic.TrackingUID: graphic
        for item in state.GraphicAnnotationSequence
        for graphic in item.GraphicObjectSequence
    }
    ellipse = drawn[made["ellipse"]["tracking_uid"]]
    assert (ellipse.GraphicType, ellipse.GraphicAnnotationUnits) == ("ELLIPSE", "PIXEL")
    assert list(ellipse.GraphicData) == [value for point in SHAPES["ellipse"] for value in point]
    texts = [
        t.UnformattedTextValue for item in state.GraphicAnnotationSequence for t in item.get("TextObjectSequence", [])
    ]
    assert "look here" in texts, "the text of an arrow without a label"
    assert {
        reference.ReferencedSOPInstanceUID
        for item in state.GraphicAnnotationSequence
        for reference in item.ReferencedImageSequence
    } == {team.sops[0]}
    if shutil.which("dciodvfy") is not None:
        (tmp_path / "state.dcm").write_bytes(answer.content)
        told = subprocess.run(["dciodvfy", tmp_path / "state.dcm"], capture_output=True, text=True, check=False)
        assert [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")] == []


async def test_reports_of_others_are_read(team: Team) -> None:
    """The walk takes any TID 1500; what refers to masks alone has no shape here and says so."""
    folder = shared_data_folder() / "derived"
    reports = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "sr" in path.name.lower() and path.read_bytes()[128:132] == b"DICM"
    ]
    if not reports:
        pytest.skip("no structured report among the development data")
    taken = 0
    for path in reports:
        answer = await team.client.post(
            f"{ANNOTATIONS}/import", params={"project_id": team.project_id}, content=path.read_bytes(),
            headers=team.people["annotator"] | {"Content-Type": "application/dicom"},
        )  # fmt: skip
        assert answer.status_code in (200, 400, 422), (path.name, answer.text)
        taken += answer.json().get("succeeded", 0)
    assert taken > 0


@pytest.mark.parametrize("content", [b"no dicom", b"\0" * 128 + b"DICM" + b"\xff" * 40])
async def test_what_is_no_report_is_refused(team: Team, content: bytes) -> None:
    answer = await team.client.post(
        f"{ANNOTATIONS}/import", params={"project_id": team.project_id}, content=content,
        headers=team.people["annotator"] | {"Content-Type": "application/dicom"},
    )  # fmt: skip
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":unreadable-report")


async def test_json_goes_out_and_in(team: Team) -> None:
    made = await draw_all(team)
    body = (await export(team, "json")).json()
    assert len(body["annotations"]) == 13
    second = await other_project(team)
    answer = await take_in(team, second, (await export(team, "json")).content, "application/json")
    assert answer["succeeded"] == 13, answer
    back = (await team.get("", "owner", project_id=second, limit=100)).json()["items"]
    for one in back:
        original = next(o for o in made.values() if o["tracking_uid"] == one["tracking_uid"])
        for member in (
            "kind",
            "geometry",
            "mapped_geometry",
            "label",
            "measurements",
            "description",
            "sop_instance_uid",
        ):
            assert one[member] == original[member]


async def test_csv_runs_no_formula(team: Team) -> None:
    await team.create(description='=HYPERLINK("http://x")', label="@cmd")
    await team.create(
        geometry={"type": "rectangle", "space": "pixel", "points": [[1, 1], [5, 4]]}, description='plain, "quoted"'
    )
    text = (await export(team, "csv")).content.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    by_type = {row["geometry_type"]: row for row in rows}
    assert by_type["length"]["description"] == '\'=HYPERLINK("http://x")'
    assert by_type["length"]["label_meaning"] == "'@cmd"
    assert float(by_type["length"]["length [mm]"]) == 22.5
    assert by_type["length"]["area [mm2]"] == ""
    assert by_type["rectangle"]["description"] == 'plain, "quoted"'
    assert float(by_type["rectangle"]["area [mm2]"]) == pytest.approx(4 * 3 * 0.75**2)


async def test_coco_holds_boxes_and_outlines_in_pixels(team: Team) -> None:
    made = await draw_all(team)
    answer = await export(team, "coco")
    assert answer.headers["annotomy-left-out"] == "2"  # the key image and the study's label have no shape
    coco = answer.json()
    [image] = coco["images"]
    assert (image["width"], image["height"], image["sop_instance_uid"]) == (64, 64, team.sops[0])
    assert coco["categories"] == [{"id": 1, "name": "Nodule", "supercategory": "SCT:27925004"}]
    by_id = {one["annotomy_id"]: one for one in coco["annotations"]}
    box = by_id[made["rectangle"]["id"]]
    assert (box["bbox"], box["area"]) == ([5, 5, 10, 7], 70)
    assert by_id[made["polygon"]["id"]]["segmentation"] == [[v for p in SHAPES["polygon"] for v in p]]


async def test_nobody_exports_what_they_may_not_read(team: Team) -> None:
    await team.create()
    query = {"study_instance_uid": team.study, "format": "json"}
    answer = await team.client.get(f"{ANNOTATIONS}/export", params=query, headers=team.people["stranger"])
    assert answer.status_code == 404
    answer = await team.client.get(
        f"{ANNOTATIONS}/export", params=query | {"project_id": team.project_id}, headers=team.people["stranger"]
    )
    assert answer.status_code == 404
    refused = await team.client.post(
        f"{ANNOTATIONS}/import", params={"project_id": team.project_id}, json={"annotations": [team.body()]},
        headers=team.people["viewer"],
    )  # fmt: skip
    assert [result["status"] for result in refused.json()["results"]] == [403]
