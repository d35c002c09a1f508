"""/api/v1/remotes: the registry, what a remote holds, bringing in, sending, and the synchronised list."""

from typing import Annotated
from uuid import UUID

from litestar import Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.archive.errors import ReasonRequired
from annotomy.errors import BadRequest, Conflict, NotFound
from annotomy.http.egress import EgressRefused
from annotomy.http.etags import etag, expected_version
from annotomy.http.pages import Page
from annotomy.identity.credentials import require_fresh
from annotomy.identity.errors import StepUpRequired
from annotomy.identity.seal import Seal
from annotomy.remotes import ask, bring, push, registry, sync
from annotomy.remotes.errors import NothingToPush, RemoteExists, RemoteFailed
from annotomy.remotes.remote_archive import Openers
from annotomy.remotes.schemas import (
    Echo,
    NewPush,
    NewRemote,
    NewRetrieval,
    OpenRemote,
    Push,
    RemoteAnswer,
    RemoteRow,
    Retrieval,
    Sync,
    SyncRun,
    SyncSettings,
)
from annotomy.services import Services

MAX_PAGE = 500
DEFAULT_PAGE = 50
MAX_VALUE = 256
"""Characters of one filter."""


@get("/", operation_id="ListRemotes", opt={"permission": "system.manage"})
async def list_remotes(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[RemoteAnswer]:
    """Every remote, without secrets."""
    async with services.db.read(actor) as tx:
        found = await registry.list_remotes(tx)
    return Page(items=found, next=None, total=len(found))


@post("/", operation_id="CreateRemote", opt={"permission": "system.manage", "problems": [RemoteExists, StepUpRequired]})
async def create_remote(
    data: JSONBody[NewRemote], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[RemoteAnswer]:
    """Make an archive elsewhere known, over DICOMweb or DIMSE."""
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        made = await registry.create_remote(tx, Seal(services.settings.identity.secret), data)
    return _with_etag(made)


@get("/{remote_id:uuid}", operation_id="GetRemote", opt={"permission": "system.manage"})
async def get_remote(
    remote_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[RemoteAnswer]:
    """One remote, without secrets."""
    async with services.db.read(actor) as tx:
        return _with_etag(await registry.get_remote(tx, remote_id))


@put(
    "/{remote_id:uuid}",
    operation_id="ChangeRemote",
    opt={"permission": "system.manage", "problems": [RemoteExists, StepUpRequired]},
)
async def change_remote(
    remote_id: FromPath[UUID],
    data: JSONBody[NewRemote],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: Annotated[str | None, HeaderParameter(name="If-Match")] = None,
) -> Response[RemoteAnswer]:
    """Describe a remote anew. Secrets that are left out stay while its host does."""
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        seal = Seal(services.settings.identity.secret)
        changed = await registry.change_remote(tx, seal, remote_id, data, expected_version(if_match))
    return _with_etag(changed)


@delete(
    "/{remote_id:uuid}", operation_id="DeleteRemote", opt={"permission": "system.manage", "problems": [StepUpRequired]}
)
async def delete_remote(
    remote_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Forget a remote. What was brought in stays."""
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        await registry.delete_remote(tx, remote_id)


@post("/{remote_id:uuid}/echo", status_code=200, operation_id="EchoRemote", opt={"permission": "system.manage"})
async def echo_remote(
    remote_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    remote_openers: NamedDependency[Openers],
) -> Echo:
    """Ask whether a remote is there: C-ECHO, or a query for one study. A failure is told in the answer."""
    return await ask.echo(services, remote_openers, actor, remote_id)


@get(
    "/{remote_id:uuid}/studies",
    operation_id="QueryRemoteStudies",
    opt={"permission": "remote.query", "problems": [RemoteFailed, EgressRefused, NotFound]},
)
async def query_studies(
    remote_id: FromPath[UUID],
    project_id: Annotated[UUID, QueryParameter(description="In whose name it is asked; its rules filter the answer.")],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    remote_openers: NamedDependency[Openers],
    patient_id: Annotated[str, QueryParameter(name="PatientID", max_length=MAX_VALUE)] = "",
    patient_name: Annotated[str, QueryParameter(name="PatientName", max_length=MAX_VALUE)] = "",
    patient_birth_date: Annotated[str, QueryParameter(name="PatientBirthDate", max_length=MAX_VALUE)] = "",
    study_uid: Annotated[str, QueryParameter(name="StudyInstanceUID", max_length=MAX_VALUE)] = "",
    study_date: Annotated[str, QueryParameter(name="StudyDate", max_length=MAX_VALUE)] = "",
    study_description: Annotated[str, QueryParameter(name="StudyDescription", max_length=MAX_VALUE)] = "",
    accession_number: Annotated[str, QueryParameter(name="AccessionNumber", max_length=MAX_VALUE)] = "",
    modalities: Annotated[str, QueryParameter(name="ModalitiesInStudy", max_length=MAX_VALUE)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: FromQuery[str | None] = None,
) -> Page[RemoteRow]:
    """Search a remote now. Filters are those of QIDO-RS: wildcards in texts, `from-to` in dates."""
    match = {
        "PatientID": patient_id, "PatientName": patient_name, "PatientBirthDate": patient_birth_date,
        "StudyInstanceUID": study_uid, "StudyDate": study_date, "StudyDescription": study_description,
        "AccessionNumber": accession_number, "ModalitiesInStudy": modalities,
    }  # fmt: skip
    asked = {keyword: _filter(value) for keyword, value in match.items() if value}
    return await ask.query_studies(
        services, remote_openers, actor, remote_id, project_id, asked, limit=limit, cursor=cursor
    )


@get(
    "/{remote_id:uuid}/studies/{study_instance_uid:str}/series",
    operation_id="QueryRemoteSeries",
    opt={"permission": "remote.query", "problems": [RemoteFailed, EgressRefused]},
)
async def query_series(
    remote_id: FromPath[UUID],
    study_instance_uid: FromPath[str],
    project_id: Annotated[UUID, QueryParameter(description="In whose name it is asked; its rules filter the answer.")],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    remote_openers: NamedDependency[Openers],
) -> Page[RemoteRow]:
    """The series of a study at a remote."""
    uid = _uid(study_instance_uid)
    return await ask.query_series(services, remote_openers, actor, remote_id, project_id, uid)


@post(
    "/{remote_id:uuid}/retrievals",
    status_code=202,
    operation_id="RetrieveFromRemote",
    opt={"permission": "remote.retrieve", "problems": [NotFound]},
)
async def ask_retrieval(
    remote_id: FromPath[UUID],
    data: JSONBody[NewRetrieval],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[Retrieval]:
    """Bring a study or series into a project. Asked again, it fetches only what is missing. `POST /jobs/{id}/cancel` stops it."""
    async with services.db.write(actor) as tx:
        asked = await bring.ask_retrieval(tx, remote_id, data)
    return Response(asked, headers={"Location": f"/api/v1/remotes/{remote_id}/retrievals/{asked.id}"})


@get(
    "/{remote_id:uuid}/retrievals/{retrieval_id:uuid}",
    operation_id="GetRetrieval",
    opt={"permission": "remote.retrieve"},
)
async def get_retrieval(
    remote_id: FromPath[UUID],
    retrieval_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Retrieval:
    """How far a retrieval is: what the remote named, what is here, what was refused and why."""
    async with services.db.read(actor) as tx:
        return await bring.get_retrieval(tx, remote_id, retrieval_id)


@post(
    "/{remote_id:uuid}/pushes",
    status_code=202,
    operation_id="PushToRemote",
    opt={"permission": "remote.push", "problems": [NothingToPush, ReasonRequired]},
)
async def ask_push(
    remote_id: FromPath[UUID],
    data: JSONBody[NewPush],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[Push]:
    """Send a study, a series or single instances that the project holds: masks and reports, too. It is tried until the remote took
    it, or for some hours. Proposals that nobody accepted are left out."""
    asked = await push.ask_push(services, actor, remote_id, data)
    return Response(asked, headers={"Location": f"/api/v1/remotes/{remote_id}/pushes/{asked.id}"})


@get("/{remote_id:uuid}/pushes", operation_id="ListPushes", opt={"permission": "remote.push"})
async def list_pushes(
    remote_id: FromPath[UUID],
    project_id: Annotated[UUID, QueryParameter()],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: FromQuery[str | None] = None,
) -> Page[Push]:
    """What a project sent or sends to a remote, newest first."""
    async with services.db.read(actor) as tx:
        return await push.list_pushes(tx, remote_id, project_id, limit=limit, cursor=cursor)


@get("/{remote_id:uuid}/pushes/{push_id:uuid}", operation_id="GetPush", opt={"permission": "remote.push"})
async def get_push(
    remote_id: FromPath[UUID],
    push_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Push:
    """One push, with what became of each instance."""
    async with services.db.read(actor) as tx:
        return await push.get_push(tx, remote_id, push_id)


@post(
    "/{remote_id:uuid}/pushes/{push_id:uuid}/retry",
    status_code=202,
    operation_id="RetryPush",
    opt={"permission": "remote.push", "problems": [Conflict]},
)
async def retry_push(
    remote_id: FromPath[UUID],
    push_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Push:
    """Try one anew that was given up, with what was not taken."""
    async with services.db.write(actor) as tx:
        return await push.retry_push(tx, remote_id, push_id)


@post(
    "/{remote_id:uuid}/pushes/{push_id:uuid}/cancel",
    status_code=200,
    operation_id="CancelPush",
    opt={"permission": "remote.push", "problems": [Conflict]},
)
async def cancel_push(
    remote_id: FromPath[UUID],
    push_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Push:
    """Send no more of it. What was sent stays there."""
    async with services.db.write(actor) as tx:
        return await push.cancel_push(tx, remote_id, push_id)


@put("/{remote_id:uuid}/sync", operation_id="SetRemoteSync", opt={"permission": "system.manage"})
async def set_sync(
    remote_id: FromPath[UUID],
    data: JSONBody[SyncSettings],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Sync:
    """Keep a list of what the remote holds, pause that (`state`: `paused`), resume it (`on`), or change how it is kept."""
    async with services.db.write(actor) as tx:
        return await sync.set_sync(tx, remote_id, data, services.clock.now())


@get("/{remote_id:uuid}/sync", operation_id="GetRemoteSync", opt={"permission": "system.manage"})
async def get_sync(
    remote_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Sync:
    """How the list is kept, how the last run went and why, and how many studies are present, missing and gone."""
    async with services.db.read(actor) as tx:
        return await sync.sync_of(tx, remote_id)


@delete("/{remote_id:uuid}/sync", operation_id="StopRemoteSync", opt={"permission": "system.manage"})
async def stop_sync(
    remote_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Keep no list any more, and forget it."""
    async with services.db.write(actor) as tx:
        await sync.stop_sync(tx, remote_id)


@post("/{remote_id:uuid}/sync/runs", status_code=202, operation_id="RunRemoteSync", opt={"permission": "system.manage"})
async def run_sync(
    remote_id: FromPath[UUID],
    data: JSONBody[SyncRun],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Sync:
    """Look now. With `believe`, what is missing is taken as missing, however much it is."""
    async with services.db.write(actor) as tx:
        return await sync.run_sync(tx, remote_id, data)


@get("/{remote_id:uuid}/known-studies", operation_id="ListKnownStudies", opt={"permission": "remote.query"})
async def known_studies(
    remote_id: FromPath[UUID],
    project_id: Annotated[UUID, QueryParameter(description="In whose name it is asked; its rules filter the list.")],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    patient_id: Annotated[str, QueryParameter(name="PatientID", max_length=MAX_VALUE)] = "",
    study_uid: Annotated[str, QueryParameter(name="StudyInstanceUID", max_length=MAX_VALUE)] = "",
    accession_number: Annotated[str, QueryParameter(name="AccessionNumber", max_length=MAX_VALUE)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: FromQuery[str | None] = None,
) -> Page[RemoteRow]:
    """The studies that a remote was last seen to hold, from the synchronised list."""
    match = {"PatientID": patient_id, "StudyInstanceUID": study_uid, "AccessionNumber": accession_number}
    asked = {keyword: _filter(value) for keyword, value in match.items() if value}
    async with services.db.write(actor) as tx:
        return await sync.known_studies(tx, remote_id, project_id, asked, limit=limit, cursor=cursor)


@get("/projects/{project_id:uuid}/remotes", operation_id="ListRemotesOfProject", opt={"permission": "remote.query"})
async def list_remotes_of_project(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[OpenRemote]:
    """The remotes that are open to a project."""
    async with services.db.read(actor) as tx:
        found = await registry.remotes_of_project(tx, project_id)
    return Page(items=found, next=None, total=len(found))


def _with_etag(remote: RemoteAnswer) -> Response[RemoteAnswer]:
    return Response(remote, headers={"ETag": etag(remote.version)})


def _filter(value: str) -> str:
    if any(ord(one) < 32 or ord(one) == 127 for one in value):
        raise BadRequest("A filter has no control characters.")
    return value


def _uid(value: str) -> str:
    if not value or len(value) > 64 or not set(value) <= set("0123456789."):
        raise BadRequest("A UID has up to 64 digits and dots.")
    return value


router = Router(
    path="/remotes",
    tags=["remotes"],
    route_handlers=[
        list_remotes, create_remote, get_remote, change_remote, delete_remote, echo_remote, query_studies, query_series,
        ask_retrieval, get_retrieval, ask_push, list_pushes, get_push, retry_push, cancel_push,
        set_sync, get_sync, stop_sync, run_sync, known_studies,
    ],
)  # fmt: skip
routers = [router, Router(path="/", tags=["remotes"], route_handlers=[list_remotes_of_project])]
