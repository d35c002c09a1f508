"""Projects are known to their members alone; roles allow what they say."""

from tests.support.application import Application


async def test_a_project_does_not_exist_for_who_is_not_a_member(application: Application) -> None:
    owner, stranger = await application.headers("owner"), await application.headers("stranger")
    project = (await application.client.post("/api/v1/projects", json={"name": "liver"}, headers=owner)).json()
    for path in ("", "/members", "/studies"):
        answer = await application.client.get(f"/api/v1/projects/{project['id']}{path}", headers=stranger)
        assert answer.status_code == 404
    assert (await application.client.get("/api/v1/projects", headers=stranger)).json()["items"] == []


async def test_a_viewer_may_look_but_not_manage(application: Application) -> None:
    owner, viewer = await application.headers("owner"), await application.headers("viewer")
    me = (await application.client.get("/api/v1/users/me", headers=viewer)).json()
    project = (await application.client.post("/api/v1/projects", json={"name": "liver"}, headers=owner)).json()
    members = f"/api/v1/projects/{project['id']}/members"
    added = await application.client.post(members, json={"user_id": me["id"], "role": "viewer"}, headers=owner)
    assert added.status_code == 201
    assert len((await application.client.get(members, headers=viewer)).json()["items"]) == 2
    refused = await application.client.post(
        members, json={"user_id": me["id"], "role": "project_admin"}, headers=viewer
    )
    assert refused.status_code == 403
    assert refused.json()["permission"] == "project.manage"
    await application.client.delete(f"{members}/{me['id']}", headers=owner)
    assert (await application.client.get(members, headers=viewer)).status_code == 404
