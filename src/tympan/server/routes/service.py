"""The HTTP routes beside the sockets: what runs here, is it ready, the metrics, the page."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from tympan.errors import AccessError
from tympan.protocols.native import NativeProtocol
from tympan.server.routes.responses import request_of
from tympan.server.service import Service
from tympan.version import version

STATIC = Path(str(files("tympan.server") / "static"))
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:; img-src 'self' data:"
)
RECORDED = "What is said here is recorded by whoever runs this server."
PAGE_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}


def routes(service: Service) -> APIRouter:
    """The routes of one app."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Alive, and what runs here. 200 for as long as the process answers."""
        engine = service.engine
        return {
            "status": "ok",
            "version": version(),
            **_engine_fields(service),
            "capacity": engine.capacity,
            "active": engine.active,
            "recording": _recording(service),
            "notice": " ".join(filter(None, (engine.info.notice, RECORDED if service.observers.recorder else ""))),
        }

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """200 while streams are let in, as long as there are slots; else 503 and why."""
        reason = service.unavailable_reason
        return JSONResponse({"ready": not reason, "reason": reason}, 503 if reason else 200)

    @router.get("/v1/models", response_model=None)
    async def models(request: Request) -> dict[str, Any] | JSONResponse:
        """The loaded model, in the form of OpenAI's list, with what it can do. Asks for a key where streams do."""
        return _refusal(service, request) or {"object": "list", "data": [_model_fields(service)]}

    @router.get("/v1/models/{name:path}", response_model=None)
    async def model(request: Request, name: str) -> dict[str, Any] | JSONResponse:
        """The loaded model, if that is its name."""
        if name == service.engine.info.model:
            return _refusal(service, request) or _model_fields(service)
        return JSONResponse({"error": {"code": "model_not_found", "message": "this model is not served here"}}, 404)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=service.metrics.content_type)

    return router


def _recording(service: Service) -> str:
    """`off`, `on`, or `stopped`; the log says why, and the folder is nobody's business."""
    if service.observers.recorder is None:
        return "off"
    return "stopped" if service.observers.recorder.stopped_because else "on"


def _refusal(service: Service, request: Request) -> JSONResponse | None:
    try:
        service.keys.check(NativeProtocol(request_of(request), service.server_info).credential())
    except AccessError as error:
        return JSONResponse({"error": {"code": error.code, "message": str(error)}}, 401)
    return None


def _model_fields(service: Service) -> dict[str, Any]:
    info = service.engine.info
    return {
        "id": info.model,
        "object": "model",
        "created": 0,
        "owned_by": "tympan",
        **_engine_fields(service),
        "languages": list(info.languages),
        "sample_rate": info.sample_rate,
        "delay_seconds": info.delay_seconds,
        "pause_horizons": list(info.pause_horizons),
        "turns_from": info.turns_from,
        "notice": info.notice,
    }


def _engine_fields(service: Service) -> dict[str, str]:
    info = service.engine.info
    return {"model": info.model, "engine": info.engine, "device": info.device}
