"""A project with a stored series and whoever may ask for predictions on it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pydicom
from pydicom.filebase import DicomBytesIO

from annotomy.actor import SYSTEM
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs

Headers = dict[str, str]


@dataclass
class Scene:
    """The annotator `headers` belongs to works on one CT series in one project."""

    application: Application
    headers: Headers
    project_id: str
    series_instance_uid: str

    async def ask(self, model: str, headers: Headers | None = None, **fields: Any) -> httpx.Response:
        body = {"model": model, "project_id": self.project_id, "series_instance_uid": self.series_instance_uid}
        return await self.application.client.post(
            "/api/v1/predictions", headers=headers or self.headers, json=body | fields
        )

    async def asked(self, model: str, **fields: Any) -> Any:
        answer = await self.ask(model, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def get(self, path: str, headers: Headers | None = None) -> Any:
        answer = await self.application.client.get(f"/api/v1{path}", headers=headers or self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ended(self, model: str, **fields: Any) -> Any:
        """The prediction after every queued job has run."""
        asked = await self.asked(model, **fields)
        await run_queued_jobs(self.application.services)
        return await self.get(f"/predictions/{asked['id']}")

    async def member(self, username: str, role: str) -> Headers:
        headers = await self.application.headers(username)
        user_id = (await self.get("/users/me", headers))["id"]
        await self.set_role(user_id, role)
        return headers

    async def set_role(self, user_id: str, role: str) -> None:
        owner = await self.application.headers("owner")
        added = await self.application.client.post(
            f"/api/v1/projects/{self.project_id}/members", headers=owner, json={"user_id": user_id, "role": role}
        )
        assert added.is_success, added.text

    async def rows(self, sql: str, *values: Any) -> list[Any]:
        """As the system sees them: what no route shows."""
        async with self.application.services.db.read(SYSTEM) as tx:
            return await tx.fetch(sql, *values)


async def make_scene(application: Application, files: list[bytes] | None = None) -> Scene:
    owner = await application.headers("owner")
    made = await application.client.post("/api/v1/projects", headers=owner, json={"name": "Liver"})
    project_id = made.json()["id"]
    series_instance_uid = await store_series(application, owner, project_id, files or ct_series(6))
    scene = Scene(application, owner, project_id, series_instance_uid)
    scene.headers = await scene.member("annotator", "annotator")
    return scene


async def store_series(application: Application, headers: Headers, project_id: str | UUID, files: list[bytes]) -> str:
    parts = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in files)
    stored = await application.client.post(
        f"/dicom-web/studies?project_id={project_id}",
        headers=headers | {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
        content=parts + b"--b--\r\n",
    )
    assert stored.status_code == 200, stored.text
    return str(pydicom.dcmread(DicomBytesIO(files[0]), stop_before_pixels=True).SeriesInstanceUID)
