"""Where bulk begins a download needs a reason, over every edge; below it nobody is asked."""

from typing import Any
from urllib.parse import quote

import pytest

from annotomy.archive.downloads import admit_download
from annotomy.archive.errors import ReasonRequired
from annotomy.origin import ORIGIN, Origin
from tests.audit.records import lines, stored
from tests.support.application import Application


@pytest.fixture
async def many(application: Application) -> list[str]:
    """One study more than a day's without a reason."""
    limit = application.services.settings.audit.bulk_studies
    owner = await application.headers("owner")
    return [await stored(application, owner, f"P{number}") for number in range(limit + 1)]


async def test_the_study_that_makes_it_bulk_needs_a_reason(application: Application, many: list[str]) -> None:
    client, owner, admin = application.client, await application.headers("owner"), await application.headers("admin")

    async def take(study: str, **more: Any) -> Any:
        return await client.get(
            f"/dicom-web/studies/{study}", headers=owner | more.get("headers", {}), params=more.get("params")
        )

    for study in [*many[:-1], *many[:-1]]:
        assert (await take(study)).status_code == 200
    refused = await take(many[-1])
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:annotomy:problem:reason-required")
    assert (await take(many[0])).status_code == 200, "what was refused does not count"
    said = quote("다기관 연구 반출")
    assert (await take(many[-1], headers={"Annotomy-Reason": said})).status_code == 200
    assert (await take(many[-1], params={"download_reason": "by a link"})).status_code == 200
    found = await lines(application, admin, action="study.retrieved", study_instance_uid=many[-1])
    assert [(one["outcome"], one["reason"]) for one in found] == [
        ("denied", ""),
        ("success", "다기관 연구 반출"),
        ("success", "by a link"),
    ]


async def test_the_count_is_one_persons_over_all_credentials(application: Application, many: list[str]) -> None:
    client, owner = application.client, await application.headers("owner")
    key = (await client.post("/api/v1/api-keys", json={"name": "k"}, headers=owner)).json()["key"]
    for study in many[:-1]:
        await client.get(f"/dicom-web/studies/{study}", headers=owner)
    by_key = {"Authorization": f"Bearer {key}"}
    assert (await client.get(f"/dicom-web/studies/{many[-1]}", headers=by_key)).status_code == 403
    metadata = await client.get(f"/dicom-web/studies/{many[-1]}/metadata", headers=by_key)
    assert metadata.status_code == 200, "looking is no download"


async def test_yesterdays_downloads_do_not_count(application: Application) -> None:
    services = application.services
    person = await application.add_user("someone")
    limit = services.settings.audit.bulk_studies
    await admit_download(services, person, [f"1.2.{n}" for n in range(limit)])
    with pytest.raises(ReasonRequired):
        await admit_download(services, person, ["1.3"])
    async with services.db.write(person) as tx:
        await tx.execute("update recent_downloads set at = now() - interval '25 hours'")
    await admit_download(services, person, ["1.3"])


async def test_many_studies_in_one_request_are_bulk_at_once(application: Application) -> None:
    services = application.services
    person = await application.add_user("someone")
    studies = [f"1.2.{n}" for n in range(services.settings.audit.bulk_studies + 1)]
    with pytest.raises(ReasonRequired):
        await admit_download(services, person, studies)
    token = ORIGIN.set(Origin("here", reason="why"))
    try:
        await admit_download(services, person, studies)
    finally:
        ORIGIN.reset(token)
