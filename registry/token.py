"""Secrets that are sent or asked for as bearer tokens: given as they are, or in a file that may be replaced.

A file is read again whenever it has changed, so that a token can be rotated without a restart; while it cannot be
read the last one stands. The text of a token is in no ``repr`` and, through ``hide``, in no message.
"""

from pathlib import Path

from registry.errors import ConfigurationError


class Token:
    """One secret, or none (``Token()``). A ``path`` goes before a ``text``. Raises ``ConfigurationError``."""

    __slots__ = ("_path", "_stamp", "_text")

    def __init__(self, text: str = "", path: Path | None = None) -> None:
        self._text = text
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        if path is not None:
            try:
                self._read(path)
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"the token file {path} cannot be read: {_reason(error)}") from error
            if not self._text:
                raise ConfigurationError(f"the token file {path} is empty")

    def read(self) -> str:
        """Return the secret as it is now; empty when there is none."""
        if self._path is not None:
            try:
                self._read(self._path)
            except (OSError, UnicodeDecodeError):
                pass  # being replaced, or gone: the last one stands
        return self._text

    def hide(self, message: str) -> str:
        """Return a message without the secret."""
        return message.replace(self._text, "(token)") if self._text else message

    def _read(self, path: Path) -> None:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._text = path.read_text().strip() or self._text
            self._stamp = stamp

    def __repr__(self) -> str:
        return "Token(...)" if self._text else "Token()"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
