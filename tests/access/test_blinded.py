"""A blinded reader learns nothing of the work of others: not from lists, and not from the DICOM objects that show it."""

from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.store import Incoming, keep_derived, write_derived
from tests.access.archives import headers_only, invent_one, store
from tests.support.application import Application


async def test_the_masks_of_others_are_in_no_answer_and_in_no_count(application: Application) -> None:
    client, services = application.client, application.services
    names = ("owner", "first", "second")
    headers = {name: await application.headers(name) for name in names}
    ids = {name: (await client.get("/api/v1/users/me", headers=headers[name])).json()["id"] for name in names}
    actors = {name: Actor(UUID(ids[name]), name) for name in names}
    project = (await client.post("/api/v1/projects", json={"name": "p"}, headers=headers["owner"])).json()["id"]
    members = f"/api/v1/projects/{project}/members"
    image = invent_one(Modality="CT")
    await store(services, actors["owner"], [image], project)

    async def draw(name: str) -> str:
        mask = invent_one(Modality="SEG", StudyInstanceUID=image["StudyInstanceUID"])
        kept = await keep_derived(services, Incoming("mask", data=headers_only(mask)))
        async with services.db.write(actors[name], unrestricted=True) as tx:
            study = await tx.fetchval("select id from studies where study_instance_uid = $1", image["StudyInstanceUID"])
            await write_derived(tx, UUID(project), study, kept)
        return mask["SeriesInstanceUID"]

    async def series_of(name: str) -> set[str]:
        studies = (await client.get("/dicom-web/studies", headers=headers[name])).json()
        found = (await client.get("/dicom-web/series", headers=headers[name])).json()
        assert [study["00201206"]["Value"] for study in studies] == [[len(found)]]
        assert ("SEG" in studies[0]["00080061"]["Value"]) == (len(found) > 1)
        return {row["0020000E"]["Value"][0] for row in found}

    by_owner = await draw("owner")
    for name in ("first", "second"):
        await client.post(members, json={"user_id": ids[name], "role": "blinded_reader"}, headers=headers["owner"])
    by_first, by_second = await draw("first"), await draw("second")
    images = {image["SeriesInstanceUID"]}
    assert await series_of("owner") == images | {by_owner, by_first, by_second}
    assert await series_of("first") == images | {by_first}
    assert await series_of("second") == images | {by_second}
    theirs = f"/dicom-web/studies/{image['StudyInstanceUID']}/series/{by_first}/metadata"
    assert (await client.get(theirs, headers=headers["second"])).status_code == 404
    async with services.db.read(actors["second"]) as tx:
        assert await tx.fetchval("select count(*) from instances") == 2, "the second wall says the same"
    # The reading is over: what was hidden is shown to who reviews.
    await client.post(members, json={"user_id": ids["first"], "role": "adjudicator"}, headers=headers["owner"])
    assert await series_of("first") == images | {by_owner, by_first, by_second}
    for name in ("first", "second"):
        await client.delete(f"{members}/{ids[name]}", headers=headers["owner"])
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from audiences") == 0, (
            "without rules and blinded readers, the plain path"
        )
