"""Every router of the feature, for the composition root."""

from litestar import Router

from annotomy.annotations import batch_routes, draft_routes, exchange_routes, label_routes, list_routes, routes

ROUTERS: list[Router] = [
    routes.router,
    list_routes.router,
    batch_routes.router,
    draft_routes.router,
    exchange_routes.router,
    label_routes.router,
    label_routes.settings_router,
]
