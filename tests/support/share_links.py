"""Share links as their makers and holders use them."""

from datetime import timedelta
from typing import Any

from tests.support.application import Application


async def make_share_link(
    application: Application, maker: dict[str, str], project_id: Any, studies: dict[str, list[str]], **fields: Any
) -> dict[str, Any]:
    """Answers `id` and `token`. `studies` maps a Study Instance UID to the series that the link names; none: all of it."""
    body = {
        "name": "for a colleague",
        "studies": [{"study_instance_uid": study, "series_instance_uids": series} for study, series in studies.items()],
        "expires_at": (application.services.clock.now() + timedelta(days=7)).isoformat(),
    }
    answer = await application.client.post(
        f"/api/v1/projects/{project_id}/share-links", json=body | fields, headers=maker
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def open_share_link(application: Application, token: str, **fields: Any) -> dict[str, Any]:
    answer = await application.client.post("/api/v1/share", json={"token": token, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def share_link_headers(
    application: Application, maker: dict[str, str], project_id: Any, studies: dict[str, list[str]], **fields: Any
) -> dict[str, str]:
    """The Authorization header of somebody who opened such a link."""
    issued = await make_share_link(application, maker, project_id, studies, **fields)
    opened = await open_share_link(application, issued["token"])
    return {"Authorization": f"Bearer {opened['access_token']}"}
