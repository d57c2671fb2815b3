"""What servers over HTTP share: listening, TLS, and quiet words for clients that speak no HTTP."""

import asyncio
import errno
import logging
import signal
import ssl
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from registry.errors import ConfigurationError

# As shells say it.
_INTERRUPTED = 130
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - these are replaced, not bound


class ClientFaults(logging.Filter):
    """Says in one quiet line what aiohttp logs with a traceback: bytes that are no HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See ``logging.Filter``."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            words = "a client sent what is no HTTP: %s"
            logging.getLogger(record.name).info(words, str(error.message).partition("\n")[0])
            return False
        return True


def told_to_stop() -> "asyncio.Future[int]":
    """Return what ends when this process is told to: with its exit status, 0 after SIGTERM and 130 after Ctrl-C."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(status: int) -> None:
        if not stopped.done():
            stopped.set_result(status)

    loop.add_signal_handler(signal.SIGTERM, stop, 0)
    loop.add_signal_handler(signal.SIGINT, stop, _INTERRUPTED)
    return stopped


def reachable(host: str, port: int) -> str:
    """``host:port`` to reach a server at, from its own machine."""
    host = _WILDCARDS.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(
    runner: web.AppRunner, host: str, port: int, *, tls: ssl.SSLContext | None = None, backlog: int = 128
) -> web.TCPSite:
    """Set ``runner`` up and let it listen; ``runner.addresses`` says where. Raises ``ConfigurationError``."""
    await runner.setup()
    site = web.TCPSite(runner, host or None, port, ssl_context=tls, backlog=backlog)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} on {host} is in use; choose another one with --port") from error
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return site


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a server with this certificate (its chain included) and key needs. Raises ``ConfigurationError``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A password, so that an encrypted key is an error and no question on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        words = "no pair in PEM format, the key without a password"
        reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else words
        raise ConfigurationError(f"certificate {certificate} and key {key} cannot be used: {reason}") from error
    return context


def trusting(authority: Path) -> ssl.SSLContext:
    """Return what a client needs that trusts this authority alone. Raises ``ConfigurationError``."""
    try:
        return ssl.create_default_context(cafile=str(authority))
    except OSError as error:  # as above
        reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "no certificate in PEM"
        raise ConfigurationError(f"the authority {authority} cannot be used: {reason}") from error
