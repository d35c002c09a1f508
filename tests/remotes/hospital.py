"""A hospital: an application with a project and its data manager, and a PACS beside it that the project may use."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.store import Incoming, store_instances
from annotomy.services import Services
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.fake_pacs import FakePacs, fake_pacs

MANAGER = "manager"
STUDY, SERIES = "1.2.826.0.1.100", "1.2.826.0.1.100.1"


@dataclass
class Hospital:
    application: Application
    pacs: FakePacs
    files: list[bytes]
    remote_id: UUID
    project_id: UUID
    _headers: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    async def headers(self, person: str) -> dict[str, str]:
        if person not in self._headers:
            self._headers[person] = await self.application.headers(person)
        return self._headers[person]

    async def forget(self) -> None:
        """Our own archive is empty again."""
        async with self.services.db.write(SYSTEM) as tx:
            await tx.execute("delete from studies")

    def sign_out(self) -> None:
        self._headers.clear()

    async def actor(self, person: str) -> Actor:
        me = await self.get_as(person, "/users/me")
        return Actor(UUID(me.json()["id"]), person)

    async def keep(self, actor: Actor, project_id: UUID | None, files: Sequence[bytes]) -> None:
        """In our own archive."""

        async def each() -> AsyncGenerator[Incoming]:
            for number, file in enumerate(files):
                yield Incoming(str(number), data=file)

        outcomes = await store_instances(self.services, actor, project_id, each())
        assert all(outcome.state == "stored" for outcome in outcomes), outcomes

    @property
    def services(self) -> Services:
        return self.application.services

    async def get(self, path: str, **params: Any) -> Any:
        return await self.get_as(MANAGER, path, **params)

    async def get_as(self, person: str, path: str, **params: Any) -> Any:
        headers = await self.headers(person)
        return await self.application.client.get(f"/api/v1{path}", headers=headers, params=params)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self.post_as(MANAGER, path, body)

    async def post_as(self, person: str, path: str, body: Any = None) -> Any:
        headers = await self.headers(person)
        return await self.application.client.post(f"/api/v1{path}", headers=headers, json=body)

    async def query(self, **params: Any) -> Any:
        return await self.get(f"/remotes/{self.remote_id}/studies", project_id=str(self.project_id), **params)

    async def rule(self, **rule: Any) -> None:
        level = {"level": "STUDY", "operator": "EQ"}
        answer = await self.post_as("owner", f"/projects/{self.project_id}/rules", level | rule)
        assert answer.status_code == 201, answer.text


def allow_loopback(services: Services) -> None:
    """As ANNOTOMY_EGRESS_ALLOW=127.0.0.1 does."""
    http = msgspec.structs.replace(services.settings.http, egress_allow=("127.0.0.1",))
    object.__setattr__(services, "settings", msgspec.structs.replace(services.settings, http=http))


async def project_with_remote(application: Application, remote: dict[str, Any]) -> tuple[UUID, UUID]:
    """Of `owner`, with `manager` as its data manager; returns remote and project."""
    client, owner, admin = application.client, await application.headers("owner"), await application.headers("admin")
    project = (await client.post("/api/v1/projects", json={"name": "P"}, headers=owner)).json()["id"]
    manager = await application.headers(MANAGER)
    user_id = (await client.get("/api/v1/users/me", headers=manager)).json()["id"]
    member = {"user_id": user_id, "role": "data_manager"}
    assert (await client.post(f"/api/v1/projects/{project}/members", json=member, headers=owner)).status_code == 201
    made = await client.post("/api/v1/remotes", json=remote | {"project_ids": [project]}, headers=admin)
    assert made.status_code == 201, made.text
    return UUID(made.json()["id"]), UUID(project)


@pytest.fixture
async def hospital(application: Application) -> AsyncGenerator[Hospital]:
    allow_loopback(application.services)
    files = ct_series(4, study_instance_uid=STUDY, series_instance_uid=SERIES)
    async with fake_pacs(*files) as pacs:
        remote = {"name": "PACS", "kind": "dicomweb", "dicomweb": {"url": pacs.url}}
        remote_id, project_id = await project_with_remote(application, remote)
        yield Hospital(application, pacs, files, remote_id, project_id)
