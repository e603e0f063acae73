"""HTTP routes of Kyutai's moshi-server: transcription of a file, and information about the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tympan.errors import CapacityError, TympanError
from tympan.messages import AudioFormat, Word
from tympan.protocols.base import Refusal
from tympan.protocols.base import Request as Opening
from tympan.protocols.kyutai import KEY_HEADER, KyutaiProtocol, error_fields, word_fields
from tympan.protocols.wire import json_refusal
from tympan.server.access.quota import Account
from tympan.server.routes.body import Body
from tympan.server.routes.responses import answer, request_of
from tympan.server.routes.uploads import Upload
from tympan.server.service import Service
from tympan.version import version

PATH = "/api/asr-streaming"
MAX_WAIT_SECONDS = 5.0  # for a free slot; moshi-server waits for 100 s
RETRY_SECONDS = 0.1
UNKNOWN = "unknown"


def routes(service: Service) -> APIRouter:
    """Return the routes under `/api`."""
    router = APIRouter()

    @router.get("/api/build_info")
    async def build_info() -> Mapping[str, str]:
        """Describe the build; Kyutai's clients use this route as a health check."""
        return _build_info()

    @router.get("/api/modules_info")
    async def modules_info() -> list[dict[str, str]]:
        """Describe the model and its slots."""
        engine = service.engine
        fields = {
            "type": "batched_asr",
            "path": PATH,
            "lm": engine.info.model,
            "audio_tokenizer": engine.info.engine,
            "used_slots": str(engine.active),
            "total_slots": str(engine.capacity),
        }
        return [fields]

    @router.post(PATH, response_model=None)
    async def transcribe(request: Request) -> Response:
        """Transcribe the audio file in the body."""
        return await answer(service, _transcribe(service, request), _refuse)

    return router


async def _transcribe(service: Service, request: Request) -> Response:
    account = service.admission.check_client(request.headers.get(KEY_HEADER), request.headers)
    upload = await _upload(service, account, request_of(request))
    limits = service.config.limits
    body = Body(request, limits, limits.upload_bytes, account)
    words = [event async for event, _ in upload.events(body.request.stream(), body) if isinstance(event, Word)]
    return JSONResponse([fields for word in words for fields in word_fields(word)])


async def _upload(service: Service, account: Account, opening: Opening) -> Upload:
    """Open an upload, waiting for a free slot for a limited time.

    Raises:
        QuotaError: A limit of the API key is reached.
        CapacityError: No slot has become free.
        EngineError: The engine cannot open a stream.
    """
    deadline = asyncio.get_running_loop().time() + MAX_WAIT_SECONDS
    while True:
        try:
            return Upload(service, account, opening, AudioFormat("auto"), KyutaiProtocol.name)
        except CapacityError:
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)


def _refuse(error: TympanError) -> Refusal:
    return json_refusal(error, error_fields(error))


def _build_info() -> Mapping[str, str]:
    """Return the fields of moshi-server; only an installation from git has a commit (PEP 610)."""
    try:
        installed = distribution("tympan").read_text("direct_url.json")
    except PackageNotFoundError:  # run from a source tree
        installed = None
    origin = json.loads(installed or "{}").get("vcs_info", {})
    return {
        "build_timestamp": UNKNOWN,
        "build_date": UNKNOWN,
        "git_branch": origin.get("requested_revision", UNKNOWN),
        "git_timestamp": UNKNOWN,
        "git_date": UNKNOWN,
        "git_hash": origin.get("commit_id", UNKNOWN),
        "git_describe": f"tympan-{version()}",
        "rustc_host_triple": UNKNOWN,
        "rustc_version": UNKNOWN,
        "cargo_target_triple": UNKNOWN,
    }
