"""The composition root: every collaborator and the only list of routers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from litestar import Litestar, Request, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

import annotomy
from annotomy.actor import Actor
from annotomy.annotations import batch_routes, draft_routes, evidence_routes, exchange_routes, label_routes, list_routes
from annotomy.annotations.routes import router as annotations_router
from annotomy.audit import load_audit_key
from annotomy.blobs.choose import blob_store, staging
from annotomy.collaboration.live import LiveUpdates, live_updates
from annotomy.collaboration.routes import router as events_router
from annotomy.db.engine import Database
from annotomy.dicomweb import bulkdata, metadata, qido, rendered, stow, ups, ups_events, wado, wado_uri
from annotomy.dimse.remote import open_dimse
from annotomy.errors import Problem
from annotomy.http.admission import Admission
from annotomy.http.cookies import VIEWER_COOKIE
from annotomy.http.egress import Egress
from annotomy.http.middleware import request_context
from annotomy.http.openapi import DocumentPlugin, document, document_30
from annotomy.http.peer import Peer, address_of, peer_of
from annotomy.http.problems import (
    failure_response,
    http_exception_response,
    out_of_range_response,
    problem_response,
    unreadable_text_response,
)
from annotomy.http.static_files import handlers as static_handlers
from annotomy.identity.authenticate import Authenticator
from annotomy.identity.oidc import GroupRoles
from annotomy.identity.oidc_provider import Provider
from annotomy.identity.routes import router as identity_router
from annotomy.identity.tokens import TokenSigner
from annotomy.inference.routes import routers as inference_routers
from annotomy.inference.runners.installed import installed_runners
from annotomy.inference.runners.isolated import ModelProcess
from annotomy.interactive.routes import router as interactive_router
from annotomy.jobs.routes import router as jobs_router
from annotomy.logs import configure_logs
from annotomy.ops.audit_requests import audit_requests
from annotomy.ops.audit_review_routes import router as audit_review_router
from annotomy.ops.audit_routes import router as audit_router
from annotomy.ops.health import Readiness
from annotomy.ops.health import handlers as health_handlers
from annotomy.ops.upkeep import upkeep
from annotomy.projects.access import require_declared
from annotomy.projects.access_routes import router as access_router
from annotomy.projects.global_role_routes import router as global_roles_router
from annotomy.projects.group_roles import set_group_roles
from annotomy.projects.matrix_routes import router as matrix_router
from annotomy.projects.routes import handlers as role_and_group_handlers
from annotomy.projects.routes import router as projects_router
from annotomy.projects.share_links import share_actor
from annotomy.projects.share_routes import router as share_links_router
from annotomy.remotes.dicomweb import open_dicomweb
from annotomy.remotes.remote_archive import Openers
from annotomy.remotes.routes import routers as remotes_routers
from annotomy.segmentations.routes import router as segmentations_router
from annotomy.segmentations.tool_routes import router as segmentation_tools_router
from annotomy.services import Services
from annotomy.settings import Settings
from annotomy.uploads.direct_routes import router as direct_uploads_router
from annotomy.uploads.manifest_routes import router as manifests_router
from annotomy.uploads.quota_routes import router as quotas_router
from annotomy.uploads.routes import router as uploads_router

API_ROUTERS: list[Any] = [
    jobs_router,
    identity_router,
    projects_router,
    *role_and_group_handlers,
    access_router,
    share_links_router,
    matrix_router,
    global_roles_router,
    uploads_router,
    direct_uploads_router,
    manifests_router,
    quotas_router,
    annotations_router,
    list_routes.router,
    batch_routes.router,
    evidence_routes.router,
    draft_routes.router,
    exchange_routes.router,
    label_routes.router,
    label_routes.settings_router,
    segmentations_router,
    segmentation_tools_router,
    *inference_routers,
    interactive_router,
    *remotes_routers,
    audit_router,
    audit_review_router,
    events_router,
]
"""Everything under /api/v1, in the order of the features."""

REMOTE_OPENERS: Openers = {"dicomweb": open_dicomweb, "dimse": open_dimse}
"""How archives elsewhere are spoken to, by their kind."""

OTHER_HANDLERS: list[Any] = [
    *stow.handlers,
    *qido.handlers,
    *metadata.handlers,
    *wado.handlers,
    *rendered.handlers,
    *bulkdata.handlers,
    *wado_uri.handlers,
    *ups.handlers,
    *ups_events.handlers,
    *health_handlers,
    *static_handlers,
]
"""DICOMweb, probes and the web app, at the paths of their own."""


@asynccontextmanager
async def open_services(settings: Settings, database_url: str) -> AsyncGenerator[Services]:
    """The real collaborators of a process, closed at the end of the block."""
    audit_key = await load_audit_key(settings.data_dir, settings.audit.key)
    db = await Database.connect(database_url, pool_size=settings.database.pool_size, audit_key=audit_key)
    models = ModelProcess(settings.models)
    parts = staging(settings)
    try:
        await db.answers()
        yield Services(
            settings=settings,
            db=db,
            blobs=blob_store(settings),
            runners=installed_runners(models),
            staging=parts,
        )
    finally:
        await asyncio.to_thread(models.close)
        if parts is not None:
            await parts.close()
        await db.close()


def create_app(services: Services) -> Litestar:
    """The ASGI application over given services; tests hand in their own."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with _running(app, services):
            yield

    return _build(lifespan, lambda: services)


def create_app_from_environment() -> Litestar:
    """For an ASGI server: opens its own services. The database is migrated before (`annotomy migrate` or `serve`)."""
    settings = Settings.from_environment()
    configure_logs(settings.log_level, process="http")
    held: list[Services] = []

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        if settings.database.url is None:
            raise RuntimeError(
                "an HTTP process alone needs ANNOTOMY_DATABASE_URL; `annotomy serve` starts a database itself"
            )
        async with open_services(settings, settings.database.url) as services:
            held.append(services)
            async with _running(app, services):
                yield

    return _build(lifespan, lambda: held[0])


@asynccontextmanager
async def _running(app: Litestar, services: Services) -> AsyncGenerator[None]:
    """What one process keeps between requests, and what runs beside them."""
    signer = await TokenSigner.load(services)
    app.state.signer = signer
    app.state.provider = Provider(services, Egress(services.settings.http.egress_allow))
    app.state.authenticator = authenticator = Authenticator(services, signer, share_actor)
    app.state.readiness = Readiness(services)
    app.state.admission = Admission(services.settings.http.rate_limit)
    listening = asyncio.create_task(authenticator.listening())
    try:
        async with upkeep(services) as (app.state.audit_queue, app.state.audit_chain), live_updates(services) as live:
            app.state.live = live
            yield
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


def _build(lifespan: Any, services: Any) -> Litestar:
    async def provide_services() -> Services:
        return services()

    return Litestar(
        route_handlers=[Router(path="/api/v1", route_handlers=[*API_ROUTERS]), *OTHER_HANDLERS],
        lifespan=[lifespan],
        dependencies={
            "services": Provide(provide_services),
            "actor": Provide(_provide_actor),
            "signer": Provide(_provide_signer),
            "peer": Provide(_provide_peer),
            "provider": Provide(_provide_provider),
            "group_roles": Provide(_provide_group_roles),
            "readiness": Provide(_provide_readiness),
            "live": Provide(_provide_live),
            "remote_openers": Provide(_provide_remote_openers),
        },
        exception_handlers={
            Problem: problem_response,
            HTTPException: http_exception_response,
            asyncpg.CharacterNotInRepertoireError: unreadable_text_response,
            asyncpg.UntranslatableCharacterError: unreadable_text_response,
            asyncpg.DataError: out_of_range_response,
            Exception: failure_response,
        },
        middleware=[request_context, audit_requests],
        compression_config=CompressionConfig(
            backend="gzip",
            minimum_size=1024,
            exclude=["/dicom-web/", "/api/v1/uploads"],
            exclude_opt_key="exclude_from_compression",
        ),
        openapi_config=OpenAPIConfig(
            title="Annotomy",
            version=annotomy.__version__,
            path="/api/v1",
            render_plugins=[
                DocumentPlugin("/openapi.json", document),
                DocumentPlugin("/openapi-3.0.json", document_30),
            ],
            components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"bearer": []}],
        ),
        request_max_body_size=MAX_JSON_BYTES,
    )


MAX_JSON_BYTES = 16 << 20
"""Bodies that are decoded in memory; uploads and STOW-RS stream and set limits of their own."""


async def _provide_actor(request: Request[Any, Any, Any], state: State, services: NamedDependency[Services]) -> Actor:
    authenticator: Authenticator = state.authenticator
    address = address_of(request, services.settings.http)
    header = request.headers.get("authorization")
    cookie = request.cookies.get(VIEWER_COOKIE)
    if header is None and cookie and request.method == "GET" and request.url.path.startswith("/dicom-web/"):
        actor = await authenticator.from_credential(cookie, address)
    else:
        actor = await authenticator.from_header(header, address)
    request.state.actor = actor  # the audit reads it
    declared = str(request.route_handler.opt.get("permission", ""))
    require_declared(
        actor,
        declared,
        changes=request.method not in ("GET", "HEAD", "OPTIONS"),
        shared=request.route_handler.opt.get("shared"),
    )
    request.scope["state"]["until_answered"].enter_context(state.admission.admitted(actor.user_id))
    return actor


async def _provide_peer(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Peer:
    return peer_of(request, services.settings.http)


async def _provide_signer(state: State) -> TokenSigner:
    return state.signer


async def _provide_provider(state: State) -> Provider:
    return state.provider


async def _provide_group_roles() -> GroupRoles:
    return set_group_roles


async def _provide_remote_openers() -> Openers:
    return REMOTE_OPENERS


async def _provide_live(state: State) -> LiveUpdates:
    return state.live


async def _provide_readiness(state: State) -> Readiness:
    return state.readiness
