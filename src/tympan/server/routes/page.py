"""The web page, the folder with its scripts and styles, and the documentation of a server that runs from a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

STATIC = Path(str(files("tympan.server") / "static"))
CHECKOUT = Path(__file__).parents[4]
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(STATIC / "index.html", headers=HEADERS)


@router.get("/favicon.ico", include_in_schema=False)
async def icon() -> FileResponse:
    """Return the icon, which browsers and bookmarks request at this path whatever the page says."""
    return FileResponse(STATIC / "mark.svg")


@router.get("/guide", include_in_schema=False)
async def documentation() -> JSONResponse:
    """List the pages of the documentation; none if the server was installed from a wheel, which does not contain it."""
    return JSONResponse({"pages": sorted(_documents())})


@router.get("/guide/{path:path}", include_in_schema=False)
async def document(path: str) -> Response:
    """Return a page of the documentation as text, which every browser shows."""
    file = _documents().get(path)
    if file is None:
        return PlainTextResponse(f"There is no page {path!r} in this installation's documentation.\n", 404)
    return FileResponse(file, media_type="text/plain; charset=utf-8", headers=HEADERS)


def _documents() -> dict[str, Path]:
    """Return the file of each page by its path in the folder `docs`."""
    folder = CHECKOUT / "docs"
    if not (CHECKOUT / "pyproject.toml").exists():
        return {}
    return {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.md")}
