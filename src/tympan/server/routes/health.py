"""Routes that describe the server: health, readiness, models, metrics and the OpenAPI schema."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tympan.errors import AccessError
from tympan.protocols.errors import http_status
from tympan.protocols.native import NativeProtocol
from tympan.server.routes.responses import request_of
from tympan.server.service import Service
from tympan.version import version

RECORDING_NOTICE = "Streams of this server are recorded by its operator."


def routes(service: Service) -> APIRouter:
    """Return the routes `/health`, `/ready`, `/v1/models`, `/metrics` and `/openapi.json`."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Describe the server; 200 as long as the process responds."""
        engine, recorder = service.engine, service.observers.recorder
        recording = "off" if recorder is None else "stopped" if recorder.stop_reason else "on"
        return {
            "status": "ok",
            "version": version(),
            **_engine_fields(service),
            "capacity": engine.capacity,
            "active": engine.active,
            "recording": recording,  # the log has the reason for `stopped`
            "notice": " ".join(filter(None, (engine.info.notice, RECORDING_NOTICE if recorder else ""))),
        }

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """200 while the server accepts streams, even if all slots are in use; otherwise 503 with the reason."""
        reason = service.not_ready_reason
        return JSONResponse({"ready": not reason, "reason": reason}, 503 if reason else 200)

    @router.get("/v1/models", response_model=None)
    async def models(request: Request) -> dict[str, Any] | JSONResponse:
        """List the loaded model in OpenAI's format; requires an API key if streams do."""
        return _check_key(service, request) or {"object": "list", "data": [_model_fields(service)]}

    @router.get("/v1/models/{name:path}", response_model=None)
    async def model(request: Request, name: str) -> dict[str, Any] | JSONResponse:
        """Describe the loaded model; 404 for any other name."""
        if name == service.engine.info.model:
            return _check_key(service, request) or _model_fields(service)
        return JSONResponse({"error": {"code": "model_not_found", "message": "this model is not served here"}}, 404)

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        try:
            service.metrics_access.check(request_of(request).authorization("bearer"))
        except AccessError as error:
            return _refuse(error)
        text = service.metrics.render() if service.front is None else await service.front.metrics()
        return Response(text, media_type=service.metrics.content_type)

    @router.get("/openapi.json", include_in_schema=False)
    async def schema(request: Request) -> JSONResponse:
        return _check_key(service, request) or JSONResponse(request.app.openapi())

    return router


def _check_key(service: Service, request: Request) -> JSONResponse | None:
    """Return an error response if the request lacks a valid API key."""
    try:
        service.keys.check(NativeProtocol(request_of(request), service.server_info).credential())
    except AccessError as error:
        return _refuse(error)
    return None


def _refuse(error: AccessError) -> JSONResponse:
    body = {"error": {"code": error.code, "message": str(error)}}
    return JSONResponse(body, http_status(error), {"WWW-Authenticate": "Bearer"})


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
