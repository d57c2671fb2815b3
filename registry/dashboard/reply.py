"""Answers: security headers, pages, JSON, and refusals as a page or as JSON, whoever asks."""

from typing import Any

import msgspec
from aiohttp import hdrs, web

POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def guard(response: web.StreamResponse) -> None:
    """Put on an answer what every answer carries."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


def html(text: str, status: int = 200) -> web.Response:
    """A page; compressed where the browser takes it."""
    response = web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
    response.enable_compression()
    return response


def json(value: Any, status: int = 200) -> web.Response:
    """A value as JSON; enumerations and the like as their words."""
    body = msgspec.json.encode(value, enc_hook=str)
    response = web.Response(body=body, status=status, content_type="application/json")
    response.enable_compression()
    return response


def download(text: str, name: str) -> web.Response:
    """A file to keep."""
    headers = {hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"'}
    return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=headers)


def see(address: str) -> web.Response:
    """Go on at another address of this site."""
    return web.Response(status=303, headers={hdrs.LOCATION: local(address)})


def local(address: str) -> str:
    """An address of this site, whatever was given."""
    good = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if good and "\\" not in address else "/"


def wants_json(request: web.Request) -> bool:
    """Whether a program asks."""
    return request.path.startswith("/api/")
