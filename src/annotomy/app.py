"""The composition root: every collaborator and the only list of routers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

import annotomy
from annotomy.actor import Actor
from annotomy.annotations import batch_routes, draft_routes, exchange_routes, label_routes, list_routes
from annotomy.annotations.routes import router as annotations_router
from annotomy.blobs.filesystem import FilesystemBlobStore
from annotomy.db.engine import Database
from annotomy.dicomweb import qido, stow, wado
from annotomy.errors import Problem
from annotomy.http.middleware import request_context
from annotomy.http.problems import failure_response, http_exception_response, problem_response
from annotomy.http.static_files import handlers as static_handlers
from annotomy.identity.authenticate import Authenticator
from annotomy.identity.routes import VIEWER_COOKIE
from annotomy.identity.routes import router as identity_router
from annotomy.identity.tokens import TokenSigner
from annotomy.jobs.routes import router as jobs_router
from annotomy.logs import configure_logs
from annotomy.ops.health import Readiness
from annotomy.ops.health import handlers as health_handlers
from annotomy.projects.routes import router as projects_router
from annotomy.services import Services
from annotomy.settings import Settings
from annotomy.uploads.routes import router as uploads_router

API_ROUTERS: list[Router] = [
    jobs_router,
    identity_router,
    projects_router,
    uploads_router,
    annotations_router,
    list_routes.router,
    batch_routes.router,
    draft_routes.router,
    exchange_routes.router,
    label_routes.router,
    label_routes.settings_router,
]
"""Everything under /api/v1, in the order of the features."""

OTHER_HANDLERS: list[Any] = [*stow.handlers, *qido.handlers, *wado.handlers, *health_handlers, *static_handlers]
"""DICOMweb, probes and the web app, at the paths of their own."""


@asynccontextmanager
async def open_services(settings: Settings, database_url: str) -> AsyncGenerator[Services]:
    """The real collaborators of a process, closed at the end of the block."""
    db = await Database.connect(database_url, pool_size=settings.database.pool_size)
    try:
        yield Services(
            settings=settings,
            db=db,
            blobs=FilesystemBlobStore(settings.data_dir / "blobs"),
            runners={},
        )
    finally:
        await db.close()


def create_app(services: Services) -> Litestar:
    """The ASGI application over given services; tests hand in their own."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        signer = await TokenSigner.load(services.db)
        app.state.signer = signer
        app.state.authenticator = Authenticator(services, signer)
        app.state.readiness = Readiness(services)
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
            signer = await TokenSigner.load(services.db)
            app.state.signer = signer
            app.state.authenticator = Authenticator(services, signer)
            app.state.readiness = Readiness(services)
            yield

    return _build(lifespan, lambda: held[0])


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
            "readiness": Provide(_provide_readiness),
        },
        exception_handlers={
            Problem: problem_response,
            HTTPException: http_exception_response,
            Exception: failure_response,
        },
        middleware=[request_context],
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
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
            components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"bearer": []}],
        ),
        request_max_body_size=MAX_JSON_BYTES,
    )


MAX_JSON_BYTES = 16 << 20
"""Bodies that are decoded in memory; uploads and STOW-RS stream and set limits of their own."""


async def _provide_actor(request: Request[Any, Any, Any], state: State) -> Actor:
    authenticator: Authenticator = state.authenticator
    header = request.headers.get("authorization")
    cookie = request.cookies.get(VIEWER_COOKIE)
    if header is None and cookie and request.method == "GET" and request.url.path.startswith("/dicom-web/"):
        return await authenticator.from_credential(cookie)
    return await authenticator.from_header(header)


async def _provide_signer(state: State) -> TokenSigner:
    return state.signer


async def _provide_readiness(state: State) -> Readiness:
    return state.readiness
