"""Secrets that are sent or asked for as bearer tokens: given as they are, or in a file that may be replaced.

``Token`` is what a client sends, ``Tokens`` are what a server takes. A file is read at every use (about 15 µs), so that
a token can be rotated without a restart and no change is missed, however the file was replaced; while it holds nothing
usable the last token stands. The text of a token is in no ``repr`` and, through ``hide``, in no message.
"""

import hmac
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
            self._text = _content(path)
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


class Tokens:
    """The secrets a server takes: a file with one on each line, so that an old and a new one overlap for a while.

    Raises ``ConfigurationError``.
    """

    __slots__ = ("_held", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = _lines(_content(path))
        if not self._held:
            raise ConfigurationError(
                f"the token file {path} holds one token on each line, without spaces or letters outside of ASCII"
            )

    def accept(self, offered: str) -> bool:
        """Whether ``offered`` is one of those in the file now; how long it takes does not tell how near it came."""
        try:
            self._held = _lines(self._path.read_text()) or self._held
        except (OSError, UnicodeDecodeError):
            pass  # being replaced, or gone
        given = offered.encode(errors="replace")
        found = False
        for each in self._held:
            found |= hmac.compare_digest(given, each)
        return found

    def __repr__(self) -> str:
        return "Tokens(...)"


def _content(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the token file {path} cannot be read: {_reason(error)}") from error
    if not text:
        raise ConfigurationError(f"the token file {path} is empty")
    return text


def _lines(text: str) -> tuple[bytes, ...]:
    """The tokens in ``text``, none at all if one of them is unfit: then the file is broken, or half written."""
    tokens = [line.strip() for line in text.splitlines() if line.strip()]
    return () if any(map(_UNFIT.search, tokens)) else tuple(each.encode() for each in tokens)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is no text"
