"""The bearer token that nodes may demand (``twostep node --token-file``): where it comes from, and who gets it.

It is given with the client, else by TWOSTEP_NODE_TOKEN_FILE, a file that is read again at every attempt, so that the
token can be replaced without a restart; else by TWOSTEP_NODE_TOKEN. Attempts at nodes carry it, probes do not, and a
request's own ``Authorization`` goes before it. Redirects are not followed, so nobody else is sent it. What a node, or
whatever answers in its place, repeats of it is struck out of every message.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from registry.errors import ConfigurationError
from registry.token import Token
from smartclient.errors import BadOption

TEXT, FILE = "TWOSTEP_NODE_TOKEN", "TWOSTEP_NODE_TOKEN_FILE"
_HEADER = "Authorization"


class Bearer:
    """The token of one client."""

    __slots__ = ("_token",)

    def __init__(self, token: Token) -> None:
        self._token = token

    @classmethod
    def of(cls, given: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Self | None:
        """Return what sends the token ``given``, a text or the path of a file; None takes the environment's.

        Without a token, or with an empty one, there is nothing to send: None. Raises ``BadOption``.
        """
        name, text, path = "token", "", given
        if given is None:
            path = environment.get(FILE, "")
            name = FILE if path else TEXT
            text = "" if path else environment.get(TEXT, "")
        elif isinstance(given, str):
            text, path = given, ""
        try:
            token = Token(text, Path(path) if path else None)
        except ConfigurationError as error:
            raise BadOption(f"{name}: {error}") from error
        return cls(token) if token.read() else None

    def header(self, own: Mapping[str, str]) -> Mapping[str, str]:
        """Return what to add to a request with the headers ``own``: nothing where they say who asks."""
        if any(name.lower() == _HEADER.lower() for name in own):
            return {}
        return {_HEADER: f"Bearer {self._token.read()}"}

    def hide(self, message: str) -> str:
        """Return a message without the token."""
        return self._token.hide(message)

    def strike(self, error: BaseException) -> None:
        """Take the token out of an error's words and of its causes': they may quote what was answered."""
        each: BaseException | None = error
        while each is not None:
            each.args = tuple(self._struck(word) for word in each.args)
            vars(each).update({name: self._struck(value) for name, value in vars(each).items()})
            each = each.__cause__

    def _struck(self, value: object) -> object:
        return self.hide(value) if type(value) is str else value  # an enumeration's member is a str as well
