"""Who may use a node and who may steer it: bearer tokens, in two realms.

Without inference tokens everybody may use the node; without admin tokens nobody may steer it. Who may steer it may use
it too. The files are read at every request, a token on each line (``registry.token``). A token is in no message.
"""

from pathlib import Path
from typing import Literal, Self

from node.errors import Forbidden, NodeError, Unauthorized
from registry.errors import ConfigurationError
from registry.token import Tokens

Realm = Literal["inference", "admin"]


class Access:
    """The tokens of one node; None: there are none."""

    __slots__ = ("_admin", "_inference")

    def __init__(self, inference: Tokens | None = None, admin: Tokens | None = None) -> None:
        self._inference = inference
        self._admin = admin

    @classmethod
    def from_files(cls, inference: Path | None, admin: Path | None) -> Self:
        """Read the files of ``--token-file`` and ``--admin-token-file``. Raises ``NodeError``."""
        return cls(_tokens("--token-file", inference), _tokens("--admin-token-file", admin))

    def check(self, authorization: str | None, realm: Realm) -> None:
        """Raise ``Unauthorized`` or ``Forbidden`` unless a request with this ``Authorization`` header may."""
        if realm == "admin":
            self._check_admin(_bearer(authorization))
        elif self._inference is not None:
            token = _bearer(authorization)
            if not (self._inference.accept(token) or (self._admin is not None and self._admin.accept(token))):
                raise _unknown(token)

    def _check_admin(self, token: str) -> None:
        if self._admin is None:
            raise Forbidden("steering is off on this node; start it with --admin-token-file FILE to allow it")
        if self._admin.accept(token):
            return
        if self._inference is not None and self._inference.accept(token):
            raise Forbidden("this token is for inference only; steering takes one of the admin token file")
        raise _unknown(token)


def _tokens(flag: str, path: Path | None) -> Tokens | None:
    try:
        return None if path is None else Tokens(path)
    except ConfigurationError as error:
        raise NodeError(f"{flag}: {error}") from error


def _bearer(authorization: str | None) -> str:
    """The token in a header; empty, which no token is, when there is none."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unknown(token: str) -> Unauthorized:
    if token:
        return Unauthorized("the token is none of those this node takes; it may have been replaced")
    return Unauthorized("this node asks for a token; send it as a header: Authorization: Bearer TOKEN")
