"""/api/v1/projects/{id}/rules with their preview, /studies/{uid}/access, /access-requests."""

from typing import Annotated, cast
from uuid import UUID

from litestar import Response, Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody

from annotomy.actor import Actor
from annotomy.http.etags import etag, expected_version
from annotomy.http.pages import Page
from annotomy.projects import explain, requests, rules
from annotomy.projects.attributes import ATTRIBUTES
from annotomy.projects.schemas import (
    AccessRequest,
    Decision,
    DraftPreview,
    NewAccessRequest,
    NewRule,
    Preview,
    RuleAnswer,
    RuleAttribute,
    RuleChange,
    StudyAccess,
)
from annotomy.projects.visibility import Level
from annotomy.services import Services


@get("/projects/{project_id:uuid}/rules", operation_id="ListRules", opt={"permission": "project.manage"})
async def list_rules(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[RuleAnswer]:
    """The rules of a project, oldest first."""
    async with services.db.read(actor) as tx:
        found = await rules.list_rules(tx, project_id)
    return Page(items=found, next=None, total=len(found))


@post("/projects/{project_id:uuid}/rules", operation_id="CreateRule", opt={"permission": "project.manage"})
async def create_rule(
    project_id: FromPath[UUID],
    data: JSONBody[NewRule],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[RuleAnswer]:
    """Add a rule; it holds from this answer on. With rules, only what an ALLOW gives is seen."""
    async with services.db.write(actor) as tx:
        rule = await rules.create_rule(tx, project_id, data)
    return Response(rule, status_code=201, headers={"ETag": etag(rule.version)})


@patch(
    "/projects/{project_id:uuid}/rules/{rule_id:uuid}",
    operation_id="ChangeRule",
    opt={"permission": "project.manage"},
)
async def change_rule(
    project_id: FromPath[UUID],
    rule_id: FromPath[UUID],
    data: JSONBody[RuleChange],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: Annotated[str | None, HeaderParameter(name="If-Match")] = None,
) -> Response[RuleAnswer]:
    """Change a rule by a merge patch."""
    async with services.db.write(actor) as tx:
        rule = await rules.change_rule(tx, project_id, rule_id, data, expected_version(if_match))
    return Response(rule, headers={"ETag": etag(rule.version)})


@delete(
    "/projects/{project_id:uuid}/rules/{rule_id:uuid}",
    operation_id="DeleteRule",
    opt={"permission": "project.manage"},
)
async def delete_rule(
    project_id: FromPath[UUID],
    rule_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Delete a rule. Without the last one, members see what is assigned again."""
    async with services.db.write(actor) as tx:
        await rules.delete_rule(tx, project_id, rule_id)


@get("/projects/{project_id:uuid}/rules/preview", operation_id="PreviewRules", opt={"permission": "project.manage"})
async def preview(
    project_id: FromPath[UUID],
    user_id: FromQuery[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Preview:
    """What a member sees of the project now: how much, and the newest studies."""
    async with services.db.read(actor) as tx:
        person = await explain.preview_actor(tx, project_id, user_id)
    async with services.db.read(person) as tx:
        studies, series, instances = await explain.count_visible(tx)
        items = await explain.newest_visible(tx)
    return Preview(user_id=user_id, studies=studies, series=series, instances=instances, items=items)


@post(
    "/projects/{project_id:uuid}/rules/preview",
    status_code=200,
    operation_id="PreviewDraftRules",
    opt={"permission": "project.manage"},
)
async def preview_draft(
    project_id: FromPath[UUID],
    data: JSONBody[DraftPreview],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Preview:
    """What a member would see if the project had these rules and no others. Nothing is stored."""
    async with services.db.read(actor) as tx:
        return await explain.preview_draft(tx, project_id, data.user_id, data.rules, now=services.clock.now())


@get("/rule-attributes", operation_id="ListRuleAttributes", opt={"permission": "own"})
async def rule_attributes(actor: NamedDependency[Actor]) -> Page[RuleAttribute]:
    """The DICOM attributes that rules may name, and of what kind their values are."""
    del actor  # no secret, and the same for everybody who is signed in
    found = [
        RuleAttribute(name, cast("Level", attribute.table.upper()), attribute.kind)
        for name, attribute in ATTRIBUTES.items()
    ]
    return Page(items=found, next=None, total=len(found))


@get("/studies/{study_instance_uid:str}/access", operation_id="ExplainAccess", opt={"permission": "project.manage"})
async def access(
    study_instance_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    user_id: FromQuery[UUID | None] = None,
) -> StudyAccess:
    """Who sees a study through the projects that one manages, and why or why not."""
    async with services.db.read(actor) as tx:
        return StudyAccess(study_instance_uid, await explain.who_sees(tx, study_instance_uid, user_id))


# -- access requests --------------------------------------------------------------------------------------------------


@get("/access-requests", operation_id="ListAccessRequests", opt={"permission": "own"})
async def list_requests(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[AccessRequest]:
    """One's own requests, and those for the projects that one manages."""
    async with services.db.read(actor) as tx:
        found = await requests.list_requests(tx)
    return Page(items=found, next=None, total=len(found))


@post("/access-requests", operation_id="AskForAccess", opt={"permission": "own"})
async def ask(
    data: JSONBody[NewAccessRequest], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> AccessRequest:
    """Ask to become a member of a project."""
    async with services.db.write(actor) as tx:
        return await requests.ask(tx, data, now=services.clock.now())


@post(
    "/access-requests/{request_id:uuid}/approve",
    status_code=200,
    operation_id="ApproveAccessRequest",
    opt={"permission": "project.manage"},
)
async def approve(
    request_id: FromPath[UUID],
    data: JSONBody[Decision],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> AccessRequest:
    """Approve: the asker becomes a member."""
    async with services.db.write(actor) as tx:
        return await requests.approve(tx, request_id, role=data.role, expires_at=data.expires_at, note=data.note)


@post(
    "/access-requests/{request_id:uuid}/deny",
    status_code=200,
    operation_id="DenyAccessRequest",
    opt={"permission": "project.manage"},
)
async def deny(
    request_id: FromPath[UUID],
    data: JSONBody[Decision],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> AccessRequest:
    """Deny, with a note."""
    async with services.db.write(actor) as tx:
        return await requests.deny(tx, request_id, note=data.note)


@delete("/access-requests/{request_id:uuid}", operation_id="WithdrawAccessRequest", opt={"permission": "own"})
async def withdraw(
    request_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Take one's open request back."""
    async with services.db.write(actor) as tx:
        await requests.withdraw(tx, request_id)


router = Router(
    path="/",
    tags=["projects"],
    route_handlers=[
        list_rules, create_rule, change_rule, delete_rule, preview, preview_draft, rule_attributes, access,
        list_requests, ask, approve, deny, withdraw,
    ],
)  # fmt: skip
