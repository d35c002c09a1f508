"""Quotas hold for a user and a project, before bytes are sent, while archives unpack, and against uploads made at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from annotomy.actor import SYSTEM
from annotomy.archive.quotas import fold_usage
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.uploads.test_uploads import CHUNK, upload, zipped


async def limit(application: Application, headers: dict[str, str], subject: str = "user", **quota: int) -> str:
    """Sets a quota of the user, or of their inbox, and gives the id of whom it holds for."""
    me = (await application.client.get("/api/v1/users/me", headers=headers)).json()
    subject_id = me["id"]
    if subject == "project":
        subject_id = (await application.client.get("/api/v1/projects", headers=headers)).json()["items"][0]["id"]
    admin = await application.headers("admin")
    answer = await application.client.put(f"/api/v1/quotas/{subject}/{subject_id}", json=quota, headers=admin)
    assert answer.status_code == 200, answer.text
    return subject_id


async def create(application: Application, headers: dict[str, str], length: int, **more: str) -> Any:
    told = {"Tus-Resumable": "1.0.0", "Upload-Length": str(length)} | more
    return await application.client.post("/api/v1/uploads", headers=headers | told)


async def usage(application: Application, headers: dict[str, str], **query: str) -> Mapping[str, Any]:
    answer = await application.client.get("/api/v1/usage", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("subject", ["user", "project"])
async def test_uploads_made_at_once_do_not_pass_a_limit_together(application: Application, subject: str) -> None:
    headers = await application.headers("owner")
    await create(application, headers, 1)
    subject_id = await limit(application, headers, subject, in_flight_bytes=1001)
    answers = await asyncio.gather(*(create(application, headers, 300) for _ in range(8)))
    assert sorted(one.status_code for one in answers) == [201] * 3 + [413] * 5
    refused = next(one.json() for one in answers if one.status_code == 413)
    assert refused["type"] == "urn:annotomy:problem:quota-exceeded"
    assert (refused["quota"], refused["subject"], refused["limit"]) == ("in_flight_bytes", subject, 1001)
    query = {"project_id": subject_id} if subject == "project" else {}
    used = await usage(application, headers, **query)
    assert (used["in_flight_bytes"], used["open_uploads"], used["quota"]["in_flight_bytes"]) == (901, 4, 1001)
    given_up = next(one for one in answers if one.status_code == 201).headers["location"]
    tus = {"Tus-Resumable": "1.0.0"}
    assert (await application.client.delete(given_up, headers=headers | tus)).status_code == 204
    assert (await create(application, headers, 300)).status_code == 201, "what is given up makes room"


async def test_the_number_of_open_uploads_is_limited(application: Application) -> None:
    headers = await application.headers("owner")
    await limit(application, headers, open_uploads=2)
    found = [(await create(application, headers, 10)).status_code for _ in range(3)]
    assert found == [201, 201, 413]


async def test_an_upload_whose_length_is_told_later_claims_as_it_grows(application: Application) -> None:
    headers = await application.headers("owner")
    await limit(application, headers, in_flight_bytes=8)
    told = {"Tus-Resumable": "1.0.0", "Upload-Defer-Length": "1"}
    url = (await application.client.post("/api/v1/uploads", headers=headers | told)).headers["location"]
    sent = [
        (await application.client.patch(url, headers=headers | CHUNK | {"Upload-Offset": offset}, content=b"12345"))
        for offset in ("0", "5")
    ]
    assert [one.status_code for one in sent] == [204, 413]
    assert (await application.client.head(url, headers=headers)).headers["upload-offset"] == "5"


async def test_what_an_archive_unpacks_to_counts_and_what_has_no_room_is_told_by_file(application: Application) -> None:
    headers = await application.headers("owner")
    slices = ct_series(4)
    size = len(slices[0])
    await limit(application, headers, stored_bytes=3 * size + size // 2)
    found = await upload(application, headers, zipped(slices))
    assert found["state"] == "stored"
    assert [file["state"] for file in found["files"]] == ["stored"] * 3 + ["refused"]
    assert found["files"][3]["problem"]["type"] == "urn:annotomy:problem:quota-exceeded"
    used = await usage(application, headers)
    assert (used["stored_bytes"], used["in_flight_bytes"], used["open_uploads"]) == (3 * size, 0, 0)
    assert (await create(application, headers, size)).status_code == 413, "refused before its bytes are sent"
    await limit(application, headers, stored_bytes=9 * size)
    again = await upload(application, headers, zipped(slices[:1]))
    assert again["files"][0]["state"] == "already"
    assert (await usage(application, headers))["stored_bytes"] == 3 * size, "what is there already costs nothing"


async def test_what_is_stored_without_an_upload_counts_and_what_is_deleted_is_given_back(
    application: Application,
) -> None:
    headers = await application.headers("owner")
    slices = ct_series(3)
    size = len(slices[0])
    assert (await stow(application, headers, slices[0])).status_code == 200
    assert (await usage(application, headers))["stored_bytes"] == size
    await limit(application, headers, "project", stored_bytes=2 * size + size // 2)
    both = await stow(application, headers, slices[1], slices[2])
    assert (both.status_code, both.json()["type"]) == (413, "urn:annotomy:problem:quota-exceeded")
    assert (await stow(application, headers, slices[1])).status_code == 200

    async def in_chunks() -> AsyncIterator[bytes]:  # of unknown length: found out when it is stored
        yield multipart(slices[2])

    told = await application.client.post("/dicom-web/studies", headers=headers | MULTIPART, content=in_chunks())
    assert told.status_code == 409
    assert told.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700], "out of resources"
    assert (await usage(application, headers))["stored_bytes"] == 2 * size
    async with application.services.db.write(SYSTEM) as tx:
        await fold_usage(tx)
        await tx.execute("delete from instances where id = (select min(id) from instances)")
    assert (await usage(application, headers))["stored_bytes"] == size
    assert (await stow(application, headers, slices[2])).status_code == 200


MULTIPART = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}


def multipart(*files: bytes) -> bytes:
    parts = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in files)
    return parts + b"--b--\r\n"


async def stow(application: Application, headers: dict[str, str], *files: bytes) -> Any:
    return await application.client.post("/dicom-web/studies", headers=headers | MULTIPART, content=multipart(*files))


async def test_only_administrators_set_quotas_and_members_see_their_project(application: Application) -> None:
    headers, stranger = await application.headers("owner"), await application.headers("stranger")
    await create(application, headers, 1)
    project_id = await limit(application, headers, "project", open_uploads=5)
    for path in (f"/api/v1/quotas/project/{project_id}",):
        assert (await application.client.put(path, json={}, headers=headers)).status_code == 403
        assert (await application.client.get(path, headers=headers)).status_code == 403
    seen = await application.client.get("/api/v1/usage", params={"project_id": project_id}, headers=stranger)
    assert seen.status_code == 404
    admin = await application.headers("admin")
    nobody = await application.client.put(
        "/api/v1/quotas/user/00000000-0000-0000-0000-000000000000", json={}, headers=admin
    )
    assert nobody.status_code == 404
    await limit(application, headers, "project")
    assert (await usage(application, headers, project_id=project_id))["quota"]["open_uploads"] is None
