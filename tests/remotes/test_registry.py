"""Remotes are described by administrators, tested by them, and opened to projects; their secrets leave for nobody."""

from typing import Any

import msgspec

from annotomy.actor import SYSTEM
from tests.remotes.hospital import Hospital
from tests.support.application import Application

PACS = {"name": "PACS", "kind": "dicomweb", "dicomweb": {"url": "http://127.0.0.1:1/dicom-web"}}


async def test_a_remote_is_made_changed_and_forgotten(application: Application) -> None:
    admin = await application.headers("admin")
    made = await application.client.post("/api/v1/remotes", json=PACS, headers=admin)
    assert made.status_code == 201, made.text
    at = f"/api/v1/remotes/{made.json()['id']}"
    renamed = PACS | {"name": "Archive"}
    assert (await application.client.put(at, json=renamed, headers=admin)).status_code == 428
    changed = await application.client.put(at, json=renamed, headers=admin | {"If-Match": made.headers["etag"]})
    assert changed.json()["name"] == "Archive"
    late = await application.client.put(at, json=PACS, headers=admin | {"If-Match": made.headers["etag"]})
    assert late.status_code == 412
    assert [
        one["name"] for one in (await application.client.get("/api/v1/remotes", headers=admin)).json()["items"]
    ] == ["Archive"]
    assert (await application.client.delete(at, headers=admin)).status_code == 204
    assert (await application.client.get(at, headers=admin)).status_code == 404


async def test_names_are_taken_once_and_only_administrators_describe_remotes(application: Application) -> None:
    admin, owner = await application.headers("admin"), await application.headers("owner")
    assert (await application.client.post("/api/v1/remotes", json=PACS, headers=owner)).status_code == 403
    await application.client.post("/api/v1/remotes", json=PACS, headers=admin)
    again = await application.client.post("/api/v1/remotes", json=PACS, headers=admin)
    assert (again.status_code, again.json()["type"]) == (409, "urn:annotomy:problem:remote-exists")


async def test_what_cannot_be_an_address_is_refused(application: Application) -> None:
    admin = await application.headers("admin")
    wrong: list[dict[str, Any]] = [
        {"dicomweb": {"url": "ftp://pacs/dicom"}},
        {"dicomweb": {"url": "https://user:password@pacs/dicom"}},
        {"dicomweb": {"url": "https://pacs/dicom?x=1"}},
        {"dicomweb": {"url": "https://pacs/dicom", "auth": "basic"}},
        {"dicomweb": {"url": "https://pacs/dicom", "auth": "bearer", "token": "a\r\nX-Injected: 1"}},
        {"dicomweb": None},
        {"dimse": {"host": "pacs", "port": 104, "ae_title": "PACS"}},
    ]
    for change in wrong:
        answer = await application.client.post("/api/v1/remotes", json=PACS | change, headers=admin)
        assert answer.status_code == 400, (change, answer.text)


async def test_a_secret_is_sealed_never_answered_and_does_not_follow_to_another_host(application: Application) -> None:
    settings = msgspec.structs.replace(
        application.services.settings,
        identity=msgspec.structs.replace(application.services.settings.identity, secret="s" * 40),
    )
    object.__setattr__(application.services, "settings", settings)
    admin = await application.headers("admin")
    address = {"url": "http://127.0.0.1:1/dicom-web", "auth": "basic", "username": "u", "password": "SESAME"}
    made = await application.client.post("/api/v1/remotes", json=PACS | {"dicomweb": address}, headers=admin)
    assert made.status_code == 201, made.text
    assert "SESAME" not in made.text
    assert made.json()["has_secrets"]
    async with application.services.db.read(SYSTEM) as tx:
        [row] = await tx.fetch("select address::text, secrets from remotes")
    assert "SESAME" not in row["address"]
    assert b"SESAME" not in row["secrets"]
    at, headers = f"/api/v1/remotes/{made.json()['id']}", admin | {"If-Match": made.headers["etag"]}
    silent = {name: value for name, value in address.items() if name != "password"}
    kept = await application.client.put(at, json=PACS | {"dicomweb": silent}, headers=headers)
    assert kept.json()["has_secrets"], "the same host keeps its secret"
    moved = silent | {"url": "http://127.0.0.2:1/dicom-web"}
    gone = await application.client.put(
        at, json=PACS | {"dicomweb": moved}, headers=admin | {"If-Match": kept.headers["etag"]}
    )
    assert not gone.json()["has_secrets"]


async def test_an_echo_says_that_the_remote_answers(hospital: Hospital) -> None:
    answer = (await hospital.post_as("admin", f"/remotes/{hospital.remote_id}/echo")).json()
    assert answer["ok"], answer
    assert answer["problem"] is None


async def test_an_echo_says_what_is_wrong(hospital: Hospital) -> None:
    hospital.pacs.answers.append((".*", lambda: (401, b"text/html", b"<h1>SECRETPATIENT</h1>")))
    answer = await hospital.post_as("admin", f"/remotes/{hospital.remote_id}/echo")
    assert answer.status_code == 200
    assert answer.json()["problem"]["type"] == "urn:annotomy:problem:remote-refused"
    assert "SECRETPATIENT" not in answer.text
    hospital.pacs.answers.clear()
    hospital.pacs.answers.append((".*", lambda: (200, b"text/html", b"<h1>Sign in</h1>")))
    answer = await hospital.post_as("admin", f"/remotes/{hospital.remote_id}/echo")
    assert answer.json()["problem"]["type"] == "urn:annotomy:problem:remote-unreadable"


async def test_an_address_that_is_not_allowed_is_not_called(application: Application) -> None:
    """The same guard as for every other outgoing call: the addresses of this network are closed until a setting opens them."""
    admin = await application.headers("admin")
    for address in (
        PACS,
        {"name": "P", "kind": "dimse", "dimse": {"host": "127.0.0.1", "port": 1, "ae_title": "PACS"}},
    ):
        made = await application.client.post("/api/v1/remotes", json=address, headers=admin)
        answer = await application.client.post(f"/api/v1/remotes/{made.json()['id']}/echo", headers=admin)
        assert answer.json()["problem"]["type"] == "urn:annotomy:problem:egress-refused"
