"""The ASGI application: which path serves which protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket
from starlette.staticfiles import StaticFiles

from tympan.config import Config
from tympan.engine.base import Engine
from tympan.protocols.deepgram.flux import FluxProtocol
from tympan.protocols.deepgram.live import DeepgramProtocol
from tympan.protocols.gradium import GradiumProtocol
from tympan.protocols.kyutai import KyutaiProtocol
from tympan.protocols.native import NativeProtocol
from tympan.protocols.openai.realtime import OpenAIProtocol
from tympan.server.access.front import Front
from tympan.server.listen import asgi_websocket
from tympan.server.routes import deepgram, health, kyutai, openai, page
from tympan.server.routes.security import SecurityMiddleware
from tympan.server.routes.upgrade import upgrade_required
from tympan.server.service import Service
from tympan.server.sessions.connection import MakeProtocol
from tympan.version import version

PROTOCOLS: Mapping[str, MakeProtocol] = {
    "/v1/stream": NativeProtocol,
    "/v1/transcribe": NativeProtocol,
    "/v1/realtime": OpenAIProtocol,
    "/v1/listen/stream": DeepgramProtocol,
    "/v1/listen": DeepgramProtocol,
    "/v2/listen": FluxProtocol,
    "/api/speech/asr": GradiumProtocol,
    kyutai.PATH: KyutaiProtocol,
}


def create_app(config: Config, engine: Engine, front: Front | None = None) -> FastAPI:
    """Return an application around one engine, which it starts unless it is ready, and stops.

    Args:
        config: All settings.
        engine: The engine.
        front: The other front processes, if there are any.
    """
    service = Service(config, engine, front)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    # FastAPI's pages load scripts from a third party, and its schema needs no key; `health` serves the schema.
    app = FastAPI(
        title="Tympan",
        version=version(),
        servers=[{"url": config.server.root_path}] if config.server.root_path else None,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the middleware accepts a slash at the end; redirects name the host behind a proxy
    )
    app.add_middleware(SecurityMiddleware, service=service)
    app.state.service = service
    for module in (health, kyutai, openai, deepgram):
        app.include_router(module.routes(service))
    app.include_router(page.router)
    app.mount("/static", StaticFiles(directory=page.STATIC), name="static")
    for path, make_protocol in PROTOCOLS.items():
        app.add_api_websocket_route(path, _endpoint(service, make_protocol))
        app.add_api_route(path, upgrade_required, methods=["GET"], include_in_schema=False)
    return app


def _endpoint(service: Service, make_protocol: MakeProtocol) -> Callable[..., object]:
    async def endpoint(websocket: WebSocket) -> None:
        await asgi_websocket.serve(websocket, service, make_protocol)

    return endpoint
