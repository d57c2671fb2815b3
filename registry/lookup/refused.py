"""An answer that is a refusal: the protocol's status, word and sentence."""

from collections.abc import Mapping


class Refused(Exception):
    """Answered with ``status``, the body's ``reason`` and sentence, and ``headers``."""

    def __init__(self, status: int, reason: str, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


def bad_request(sentence: str) -> Refused:
    """400: the request cannot be understood."""
    return Refused(400, "bad_request", sentence)


def not_found(sentence: str) -> Refused:
    """404: no such path, or a service that is not served here."""
    return Refused(404, "not_found", sentence)


def unauthorized() -> Refused:
    """401: a token is demanded."""
    sentence = "this look-up service wants its token, as a header: Authorization: Bearer TOKEN"
    return Refused(401, "unauthorized", sentence, {"WWW-Authenticate": "Bearer"})


def unavailable(sentence: str) -> Refused:
    """503: there is nothing to answer with yet."""
    return Refused(503, "unavailable", sentence, {"Retry-After": "5"})


def full(sentence: str) -> Refused:
    """503: a bound is reached."""
    return Refused(503, "full", sentence, {"Retry-After": "10"})
