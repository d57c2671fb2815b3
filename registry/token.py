"""Secrets that are sent or asked for as bearer tokens: given as they are, or in a file that may be replaced.

A file is read at every use (about 15 µs), so that a token can be rotated without a restart and no change is missed,
however the file was replaced; while it holds nothing usable the last token stands. The text of a token is in no
``repr`` and, through ``hide``, in no message.
"""

import re
from collections import deque
from pathlib import Path

from registry.errors import ConfigurationError

# What no HTTP header can carry, and no registry has in a token.
_UNFIT = re.compile(r"[^\x21-\x7e]")


class Token:
    """One secret, or none (``Token()``). A ``path`` goes before a ``text``. Raises ``ConfigurationError``."""

    __slots__ = ("_held", "_path", "_text")

    def __init__(self, text: str = "", path: Path | None = None) -> None:
        self._path = path
        self._text = text.strip()
        # The last few, for an answer to a call made before a rotation may still name the token of then.
        self._held: deque[str] = deque(maxlen=4)
        if path is not None:
            try:
                self._text = path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"the token file {path} cannot be read: {_reason(error)}") from error
            if not self._text:
                raise ConfigurationError(f"the token file {path} is empty")
        if _UNFIT.search(self._text):
            raise ConfigurationError("a token holds no spaces, line breaks or letters outside of ASCII")
        self._held.append(self._text)

    def read(self) -> str:
        """Return the secret as it is now; empty when there is none."""
        if self._path is not None:
            try:
                text = self._path.read_text().strip()
            except (OSError, UnicodeDecodeError):
                return self._text  # being replaced, or gone
            if text and text != self._text and not _UNFIT.search(text):
                self._text = text
                self._held.append(text)
        return self._text

    def hide(self, message: str) -> str:
        """Return a message without the secret, and without those it has just replaced."""
        for text in sorted(filter(None, self._held), key=len, reverse=True):
            message = message.replace(text, "(token)")
        return message

    def __repr__(self) -> str:
        return "Token(...)" if self._text else "Token()"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is no text"
