"""Once a month a person looks through the audit: what the report counts, who may read it, and that it is signed once."""

import asyncpg
import pytest

from annotomy.ops.audit_jobs import make_reviews
from annotomy.ops.audit_review import bounds_of
from annotomy.ops.audit_review_page import TEXTS
from tests.audit.records import chained, lines, moment, stored, wrote
from tests.support.application import Application

MONTH = {"since": "2024-05-01T00:00:00Z", "until": "2024-06-01T00:00:00Z"}
WORKING = "2024-05-07T03:00:00"  # a Tuesday, noon in Seoul
NIGHT = "2024-05-07T13:00:00"  # 22 o'clock in Seoul
SUNDAY = "2024-05-05T03:00:00"


async def _month(application: Application) -> dict[str, str]:
    """Records of May 2024; the administrator's headers."""
    admin = await application.headers("admin")
    services = application.services
    reader, hoarder = await application.add_user("reader"), await application.add_user("hoarder")
    for patient, at in (("a" * 32, WORKING), ("a" * 32, NIGHT), ("b" * 32, SUNDAY)):
        await wrote(
            services, reader, moment(at), "study.read", patient=patient, object_kind="series", study_instance_uid="1.2"
        )
    for number in range(21):
        uid = f"1.2.{number}"
        await wrote(
            services, hoarder, moment(WORKING), "study.retrieved", object_kind="study", object_id=uid, patient="c" * 32,
            study_instance_uid=uid, reason="연구 반출" if number == 20 else "",
        )  # fmt: skip
    await wrote(services, reader, moment(WORKING), "annotations.exported")
    await wrote(services, reader, moment(WORKING), "member.set", object_kind="user", object_id="x")
    for _ in range(3):
        await wrote(
            services, reader, moment(WORKING), "security.sign_in_refused", object_kind="user", object_id="unknown",
            outcome="denied",
        )  # fmt: skip
    await wrote(services, reader, moment("2024-06-01T00:00:00"), "study.read", patient="d" * 32)
    await chained(services)
    return admin


async def test_the_report_tells_who_did_what_to_whose_data(application: Application) -> None:
    admin = await _month(application)
    answer = await application.client.get("/api/v1/audit/report", params=MONTH, headers=admin)
    told = answer.json()
    people = {one["actor"]: one for one in told["people"]}
    assert (people["reader"]["reads"], people["reader"]["patients"], people["reader"]["exports"]) == (3, 2, 1)
    assert (people["hoarder"]["downloads"], people["hoarder"]["studies"]) == (21, 21)
    assert [(one["patient"], one["reads"]) for one in told["patients"] if one["actor"] == "reader"] == [
        ("a" * 32, 2),
        ("b" * 32, 1),
    ]
    assert [(one["actor"], one["day"], one["records"]) for one in told["off_hours"]] == [
        ("reader", "2024-05-05", 1),
        ("reader", "2024-05-07", 1),
    ]
    assert [(one["actor"], one["studies"]) for one in told["bulk"]] == [("hoarder", 21)]
    assert [(one["user_id"], one["attempts"]) for one in told["failed_sign_ins"]] == [("unknown", 3)]
    assert [one["action"] for one in told["rights_changes"]] == ["member.set"]
    assert [(one["action"], one["reason"]) for one in told["exports"]] == [
        ("study.retrieved", "연구 반출"),
        ("annotations.exported", ""),
    ]
    assert (told["records"], told["cut"]) == (29, [])
    assert [one["detail"]["report"] for one in await lines(application, admin, action="audit.viewed")][:1] == [True]


async def test_a_project_administrator_gets_a_report_on_their_project_alone(application: Application) -> None:
    owner = await application.headers("owner")
    project = (await application.client.post("/api/v1/projects", json={"name": "p"}, headers=owner)).json()["id"]
    person = await application.add_user("someone")
    for project_id in (project, None):
        await wrote(
            application.services, person, moment(WORKING), "study.read", patient="a" * 32, project_id=project_id
        )
    answer = await application.client.get("/api/v1/audit/report", params=MONTH, headers=owner)
    assert answer.json()["records"] == 1
    other = await application.client.get(
        "/api/v1/audit/report", params=MONTH | {"project_id": "01a212a1-075b-76d9-901c-4dad71d48870"}, headers=owner
    )
    assert other.json()["records"] == 0
    stranger = await application.headers("stranger")
    assert (await application.client.get("/api/v1/audit/report", params=MONTH, headers=stranger)).status_code == 403
    assert (await application.client.get("/api/v1/audit/reviews", headers=owner)).status_code == 403


@pytest.mark.parametrize("language", ["ko", "en"])
async def test_the_review_is_made_by_itself_read_as_a_page_and_signed_once(
    application: Application, language: str
) -> None:
    client, admin = application.client, await _month(application)
    auditor = await application.headers("auditor")
    me = (await client.get("/api/v1/users/me", headers=auditor)).json()["id"]
    async with application.services.db.write(await application.add_user("giver")) as tx:
        await tx.execute("insert into global_roles (user_id, role) values ($1, 'auditor')", me)
    assert await make_reviews(application.services) > 0
    assert await make_reviews(application.services) == 0
    review = (await client.get("/api/v1/audit/reviews/2024-05", headers=admin)).json()
    assert review["report"]["records"] == 29
    assert (await client.get("/api/v1/audit/reviews/1999-01", headers=admin)).status_code == 404
    signed = await client.post("/api/v1/audit/reviews/2024-05/sign", json={"note": "<b>확인함</b>"}, headers=auditor)
    assert (signed.status_code, signed.json()["signed_by"]) == (200, "auditor")
    again = await client.post("/api/v1/audit/reviews/2024-05/sign", json={}, headers=admin)
    assert again.status_code == 409
    page = await client.get("/api/v1/audit/reviews/2024-05/page", params={"language": language}, headers=auditor)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in ("title", "people", "exports", "off_hours"):
        assert TEXTS[name][("en", "ko").index(language)] in page.text
    assert "연구 반출" in page.text
    assert "&lt;b&gt;확인함" in page.text
    assert "<script" not in page.text
    assert "style-src 'sha256-" in page.headers["content-security-policy"]
    [record] = await lines(application, admin, action="audit_review.signed")
    assert (record["actor"], record["object"]["id"], record["detail"]["sha256"]) == (
        "auditor",
        "2024-05",
        review["sha256"],
    )
    listed = (await client.get("/api/v1/audit/reviews", headers=admin)).json()["items"]
    assert [one["signed_by"] for one in listed if one["month"] == "2024-05"] == ["auditor"]


@pytest.mark.parametrize(
    "statement",
    ["delete from audit_reviews", "truncate audit_reviews", "update audit_reviews set report = '{}'",
     "update audit_reviews set report = '{}', signed_at = now()"],
)  # fmt: skip
async def test_the_database_keeps_reviews_as_they_were_made(application: Application, statement: str) -> None:
    await _month(application)
    await make_reviews(application.services)
    connection = await asyncpg.connect(application.services.db.url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


def test_months_follow_the_time_zone() -> None:
    assert bounds_of("2024-12", "Asia/Seoul") == (moment("2024-11-30T15:00:00"), moment("2024-12-31T15:00:00"))


async def test_everything_that_is_stored_and_read_reaches_the_report(application: Application) -> None:
    admin, owner = await application.headers("admin"), await application.headers("owner")
    study = await stored(application, owner)
    await application.client.get(f"/dicom-web/studies/{study}", headers=owner)
    always = {"since": "2024-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    told = (await application.client.get("/api/v1/audit/report", params=always, headers=admin)).json()
    assert [(one["actor"], one["downloads"]) for one in told["patients"]] == [("owner", 1)]
