"""The page: its files, which are built into this package, and their addresses."""

import gzip
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from flowkit_web import _problems as problems
from flowkit_web._problems import Problem

FOLDER = Path(__file__).with_name("_page")
ADDRESSES = (
    "/",
    "/tasks",
    "/tasks/{task_id}",
    "/waiting",
    "/approvals",
    "/flows",
    "/flows/{name}",
    "/schedules",
    "/schedules/{schedule_id}",
    "/triggers",
    "/triggers/{trigger_id}",
    "/workers",
    "/dead-letters",
)
"""Addresses of the page's views. Each of them answers with the same document."""
FILES = "/assets/{name}"
"""Addresses of the files that the document names. Their names contain a hash of their content."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads its own files and uses its own server, and nothing else."""
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class PageFile:
    """File of the page, also compressed."""

    data: bytes
    compressed: bytes
    media_type: str


async def get_page(request: Request) -> Response:
    """Return the document of the page."""
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    return _answer(request, "index.html", headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer a refusal. A browser that opens an unknown address gets the page, which says so."""
    answer = await problems.on_http_error(request, error)
    if answer.status_code == 404 and "text/html" in request.headers.get("accept", ""):
        answer = await get_page(request)
        answer.status_code = 404
    return answer


async def get_page_file(request: Request) -> Response:
    """Return a file of the page. Browsers may keep it for ever."""
    name = f"assets/{request.path_params['name']}"
    return _answer(request, name, {"Cache-Control": FOR_EVER, "Content-Security-Policy": POLICY})


def _answer(request: Request, name: str, headers: dict[str, str]) -> Response:
    file = page_files().get(name)
    if file is None:
        raise Problem(404, "not_found", f"the page has no file {name!r}; is it built?")
    headers = {**headers, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, headers=headers, media_type=file.media_type)
    return Response(file.data, headers=headers, media_type=file.media_type)


@cache
def page_files() -> dict[str, PageFile]:
    """Return the files of the page by their names, or nothing if the page is not built."""
    return {
        path.relative_to(FOLDER).as_posix(): _read(path)
        for path in (FOLDER / "index.html", *FOLDER.glob("assets/*"))
        if path.is_file()
    }


def _read(path: Path) -> PageFile:
    data = path.read_bytes()
    media_type, _ = mimetypes.guess_type(path.name)
    return PageFile(data, gzip.compress(data, 9), media_type or "application/octet-stream")
