"""The API as one FastAPI application, before a host is attached to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from llmasos.host import Host
from llmasos.installs.installer import Installer
from llmasos_server.rest import (
    actions,
    administration,
    health,
    installing,
    invocations,
    models,
    openapi,
    policy,
    quotas,
    secrets,
    state,
    stored,
)
from llmasos_server.rest.guards import Guards
from llmasos_server.rest.health import Measured, Metrics
from llmasos_server.rest.identity import Authenticator, Revocations
from llmasos_server.rest.problems import install_problem_handlers


def create_api(lifespan: Any, *, hosts: Collection[str], routers: Collection[APIRouter] = ()) -> FastAPI:
    """Create the application.

    Args:
        lifespan: Opens the host, and calls `serve_host` before it yields.
        hosts: The accepted host names; see `Guards`.
        routers: Routers that are served beside the host's own API.
    """
    app = FastAPI(
        title="LLMasOS",
        version=version("llmasos"),
        summary="Run LLM apps, each in its sandbox, within its grants and quotas.",
        lifespan=lifespan,
        openapi_url="/openapi.json",
        # FastAPI's documentation pages load scripts from other servers; the store's own pages will show the API.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    install_problem_handlers(app)
    metrics = Metrics()
    app.state.metrics = metrics
    # The last added is the outermost, so that refusals are counted too.
    app.add_middleware(Guards, hosts=hosts)
    app.add_middleware(Measured, metrics=metrics)
    own = (actions, invocations, state, installing, policy, stored, quotas, models, administration, secrets, health)
    for router in (*(module.router for module in own), *routers):
        app.include_router(router)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign] # as FastAPI's documentation has it
    return app


def serve_host(app: FastAPI, host: Host, authenticator: Authenticator, installer_of: Callable[[], Installer]) -> None:
    """Attach a host to the application; `installer_of` makes what changes its installations."""
    app.state.host = host
    app.state.installer_of = installer_of
    app.state.authenticator = authenticator
    app.state.revocations = Revocations(authenticator)
