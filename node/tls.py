"""TLS for a node: a certificate and its key, and who must show one in turn.

TLS 1.2 is the oldest version spoken. The files are looked at from time to time; when one of them has changed, by its
time, size or inode, all are read into a new context, which new connections get. A context that exists is never changed:
OpenSSL drops the key that works before it looks at the next one, and cannot forget an authority. So while new files are
broken, or half replaced, the old ones serve, and the log says so once.
"""

import logging
import ssl
from pathlib import Path
from typing import Self

from node.errors import NodeError
from registry.timing import Clock

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0  # seconds between two looks at the files

_Fingerprint = tuple[tuple[int, int, int] | None, ...]


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return what a server with this certificate (its chain included) and key needs.

    ``client_ca``: authorities of the clients, who then must show a certificate. Raises ``NodeError``.
    """
    for path in filter(None, (certificate, key, client_ca)):
        _ensure_readable(path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A password, so that an encrypted key is an error and no question on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        if "MISMATCH" in (getattr(error, "reason", None) or ""):
            raise NodeError(f"the key {key} is not that of the certificate {certificate}; give its own") from error
        raise NodeError(
            f"certificate {certificate} and key {key} cannot be used; "
            "give PEM files: the certificate with its chain, and its key without a password"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise NodeError(f"{client_ca} holds no certificate; give the clients' authority as a PEM file") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Certificates:
    """The TLS context of now, made from files that may be replaced. Raises ``NodeError`` when the first are no good."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = (certificate, key, client_ca)
        self._read = self._look()
        self.context = server_context(*self._files)
        self.demands_clients = client_ca is not None
        self.reloads = 0

    @classmethod
    def from_files(cls, certificate: Path | None, key: Path | None, client_ca: Path | None) -> Self | None:
        """Return the certificates of ``--tls-certificate``, ``--tls-key`` and ``--tls-client-ca``, None for none."""
        if certificate is not None:
            return cls(certificate, certificate if key is None else key, client_ca)
        if key is not None or client_ca is not None:
            raise NodeError("--tls-key and --tls-client-ca go with --tls-certificate; give it as well")
        return None

    def reload_if_changed(self) -> bool:
        """Read the files again if one of them has changed; whether a new context is there. Never raises for files."""
        found = self._look()
        if found == self._read:
            return False
        self._read = found
        try:
            self.context = server_context(*self._files)
        except NodeError as error:
            log.warning("the new TLS files are not used, the old ones stand: %s", error)
            return False
        self.reloads += 1
        log.info("the TLS files have changed; new connections get the new ones")
        return True

    async def keep_fresh(self, clock: Clock) -> None:
        """Look at the files every ``LOOK_EVERY`` seconds, for ever."""
        while True:
            await clock.sleep(LOOK_EVERY)
            self.reload_if_changed()

    def _look(self) -> _Fingerprint:
        return tuple(map(_fingerprint, filter(None, self._files)))


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _ensure_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise NodeError(f"the TLS file {path} cannot be read: {error.strerror}; give its path") from error
