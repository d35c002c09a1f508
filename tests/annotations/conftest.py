"""A project with people in several roles, and a study whose frames are 64 x 64 pixels of 0.75 mm."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydicom.uid import generate_uid

from annotomy.actor import SYSTEM
from annotomy.db.identifiers import new_id
from annotomy.identity.tokens import TokenSigner
from annotomy.identity.users import create_user
from tests.support.application import Application
from tests.support.dicom_files import ct_instance

ANNOTATIONS = "/api/v1/annotations"
SIZE = 64


@dataclass
class Team:
    application: Application
    project_id: str
    study: str
    series: str
    sops: list[str]
    people: dict[str, dict[str, str]]
    """Headers by name: owner, annotator, other, reviewer, viewer, stranger (no member)."""

    @property
    def client(self) -> httpx.AsyncClient:
        return self.application.client

    def body(self, **changes: Any) -> dict[str, Any]:
        """A length of 30 columns on the first frame."""
        return {
            "project_id": self.project_id,
            "study_instance_uid": self.study,
            "series_instance_uid": self.series,
            "sop_instance_uid": self.sops[0],
            "frame_number": 1,
            "kind": "measurement",
            "geometry": {"type": "length", "space": "pixel", "points": [[10, 20], [40, 20]]},
        } | changes

    async def create(self, who: str = "annotator", **changes: Any) -> dict[str, Any]:
        answer = await self.client.post(ANNOTATIONS, json=self.body(**changes), headers=self.people[who])
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def patch(
        self, annotation: dict[str, Any], patch: dict[str, Any], who: str = "annotator", version: int | None = None
    ) -> httpx.Response:
        headers = self.people[who] | {"If-Match": f'"{version or annotation["version"]}"'}
        return await self.client.patch(f"{ANNOTATIONS}/{annotation['id']}", json=patch, headers=headers)

    async def get(self, path: str, who: str = "annotator", **query: Any) -> httpx.Response:
        return await self.client.get(f"{ANNOTATIONS}{path}", params=query, headers=self.people[who])

    async def step(self, annotation: dict[str, Any], step: str, who: str, **body: Any) -> httpx.Response:
        headers = self.people[who] | {"If-Match": f'"{annotation["version"]}"'}
        return await self.client.post(f"{ANNOTATIONS}/{annotation['id']}/{step}", json=body or None, headers=headers)


@pytest.fixture
async def team(application: Application) -> Team:
    client, people = application.client, dict[str, dict[str, str]]()
    ids = dict[str, str]()
    for name in ("owner", "annotator", "other", "reviewer", "viewer", "stranger"):
        ids[name], people[name] = await sign_up(application, name)
    project = (await client.post("/api/v1/projects", json={"name": "nodules"}, headers=people["owner"])).json()
    members = f"/api/v1/projects/{project['id']}/members"
    for name, role in (
        ("annotator", "annotator"), ("other", "project_admin"), ("reviewer", "reviewer"), ("viewer", "viewer"),
    ):  # fmt: skip
        body = {"user_id": ids[name], "role": role}
        assert (await client.post(members, json=body, headers=people["owner"])).status_code == 201
    study, series = generate_uid(), generate_uid()
    sops = [str(generate_uid()) for _ in range(3)]
    files = [
        ct_instance(study_instance_uid=study, series_instance_uid=series, number=n, sop_instance_uid=sop, size=SIZE)
        for n, sop in enumerate(sops, start=1)
    ]
    await store(application, people["owner"], project["id"], files)
    return Team(application, project["id"], str(study), str(series), sops, people)


async def sign_up(application: Application, name: str) -> tuple[str, dict[str, str]]:
    """A user with a session, without the cost of a password: the id and the Authorization header."""
    session_id = new_id()
    async with application.services.db.write(SYSTEM) as tx:
        user = await create_user(tx, username=name, password_hash="no password matches this")
        await tx.execute(
            "insert into sessions (id, user_id, expires_at) values ($1, $2, now() + interval '1 hour')",
            session_id,
            user.id,
        )
    signer: TokenSigner = application.app.state.signer
    token = signer.sign(user_id=user.id, session_id=session_id, now=application.services.clock.now())
    return str(user.id), {"Authorization": f"Bearer {token}"}


async def store(application: Application, headers: dict[str, str], project_id: str, files: list[bytes]) -> None:
    boundary = "between-instances"
    parts = [b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), file) for file in files]
    answer = await application.client.post(
        f"/dicom-web/studies?project_id={project_id}",
        content=b"".join(parts) + f"--{boundary}--\r\n".encode(),
        headers=headers | {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
    )
    assert answer.status_code == 200, answer.text
