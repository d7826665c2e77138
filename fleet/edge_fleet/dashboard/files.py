"""The dashboard's files, read once and kept in memory.

Guards: a name from a request is looked up among the files that were read at the start, never
opened; a page runs no script, style or image that did not come from here, nobody frames it, and no
text becomes markup (Trusted Types: https://www.w3.org/TR/trusted-types/).
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

STATIC = Path(__file__).parent / "static"
HOME = "index.html"
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Nothing else in the folder is served."""
HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # kept, and asked for anew each time: an update is seen at once
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class File:
    """One file. ``tag``: its digest, by which a browser asks whether it has changed."""

    media: str
    tag: str
    data: bytes = field(repr=False)
    zipped: bytes = field(repr=False)


def read(folder: Path = STATIC) -> dict[str, File]:
    """Every file that is served, by its path within ``folder``."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in MEDIA and path.is_file():
            data = path.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            zipped = gzip.compress(data, 9, mtime=0)
            name = path.relative_to(folder).as_posix()
            found[name] = File(MEDIA[path.suffix], tag, data, zipped)
    return found


def routes() -> list[BaseRoute]:
    """``/`` leads to ``/dashboard/``, under which the files are."""
    files = read()

    def give(request: Request) -> Response:
        file = files.get(request.path_params["name"] or HOME)
        return Response("not found", 404) if file is None else _given(request, file)

    def home(_request: Request) -> Response:
        return RedirectResponse("dashboard/", 307)

    return [
        Route("/", home, include_in_schema=False),
        Route("/dashboard", home, include_in_schema=False),
        Route("/dashboard/{name:path}", give, include_in_schema=False),
    ]


def _given(request: Request, file: File) -> Response:
    headers = {**HEADERS, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.zipped, headers=headers, media_type=file.media)
    return Response(file.data, headers=headers, media_type=file.media)
