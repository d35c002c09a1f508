"""Evidence: a picture goes with the version that it shows, is stale when the annotation says something else, and stays."""

import io
from typing import Any

from PIL import Image

from tests.annotations.conftest import ANNOTATIONS, Team


def picture(form: str = "PNG", shade: int = 80) -> bytes:
    file = io.BytesIO()
    Image.new("L", (40, 30), shade).save(file, form)
    return file.getvalue()


async def put(team: Team, one: dict[str, Any], content: bytes, who: str = "annotator", version: int = 1) -> Any:
    path = f"{ANNOTATIONS}/{one['id']}/versions/{version}/evidence"
    headers = team.people[who] | {"Content-Type": "image/png"}
    return await team.client.put(path, content=content, headers=headers)


async def stale(team: Team, one: dict[str, Any]) -> dict[int, bool]:
    found = (await team.get(f"/{one['id']}/evidence", "viewer")).json()["items"]
    return {entry["version"]: entry["stale"] for entry in found}


async def test_a_picture_is_stale_when_the_annotation_changes_and_not_when_it_is_reviewed(team: Team) -> None:
    made = await team.create()
    shown = picture()
    answer = await put(team, made, shown)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], answer.json()["stale"], answer.json()["bytes"]) == (1, False, len(shown))
    submitted = (await team.step(made, "submit", "annotator")).json()
    assert await stale(team, made) == {1: False}
    edited = await team.patch(made, {"description": "larger"}, version=submitted["version"])
    assert edited.status_code == 200, edited.text
    assert await stale(team, made) == {1: True}
    assert (await put(team, made, picture("JPEG"), version=3)).json()["media_type"] == "image/jpeg"
    assert await stale(team, made) == {3: False, 1: True}
    kept = await team.get(f"/{made['id']}/versions/1/evidence", "viewer")
    assert (kept.content, kept.headers["content-type"]) == (shown, "image/png")
    assert (await team.get(f"/{made['id']}/versions/2/evidence", "viewer")).status_code == 404


async def test_a_picture_is_never_replaced_and_only_added_to_what_stands(team: Team) -> None:
    made = await team.create()
    assert (await put(team, made, picture())).status_code == 200
    assert (await put(team, made, picture())).status_code == 200, "the same again"
    assert (await put(team, made, picture(shade=9))).status_code == 409
    await team.patch(made, {"description": "moved on"})
    late = await put(team, made, picture(shade=9))
    assert (late.status_code, late.json()["current_version"]) == (412, 2)
    assert (await put(team, made, picture(), version=2)).status_code == 200, "one picture may go with two versions"


async def test_evidence_follows_the_rights_of_its_annotation(team: Team) -> None:
    made = await team.create("other")
    assert [(await put(team, made, picture(), who)).status_code for who in ("viewer", "annotator", "stranger")] == [
        403, 403, 404,
    ]  # fmt: skip
    assert (await put(team, made, picture(), "other")).status_code == 200
    assert (await team.get(f"/{made['id']}/versions/1/evidence", "stranger")).status_code == 404
    assert (await team.get(f"/{made['id']}/evidence", "stranger")).status_code == 404


async def test_what_is_no_picture_is_refused(team: Team) -> None:
    made = await team.create()
    for content in (b"", b"GIF89a", b"<svg/>", picture()[:20]):
        assert (await put(team, made, content)).status_code == 422
    assert (await put(team, made, b"\x89PNG" + bytes(8 << 20))).status_code == 413
