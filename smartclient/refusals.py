"""Answers that are not the one asked for: a node's refusal in its own words, or some other server's.

For calls that know what they want back (``inference``, ``tensors``); plain ``request()`` hands any answer on as it is.
A refusal's body is ``{"error": …}``, here and in the Open Inference Protocol; our nodes add ``reason``, ``node``.
"""

import msgspec

from smartclient.bearer import FILE
from smartclient.call import Done
from smartclient.errors import AccessDenied, Attempt, BadAnswer, BadInput, CallFailed, DeadlineExceeded


class Malformed(ValueError):
    """Bytes of an answer that are not what they are said to be; the message says what is wrong with them."""


UNREADABLE = (Malformed, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading an answer raises: the last three are msgspec's, for other JSON, broken UTF-8, bottomless nesting."""

LONGEST = 500  # characters of a node's own words; some servers send a whole traceback


class _Refusal(msgspec.Struct):
    error: str = ""
    reason: str = ""
    node: str = ""


_REFUSAL = msgspec.json.Decoder(_Refusal)


def foreign(done: Done, service: str, what: str, why: str) -> BadAnswer:
    """Return the error for an answer of another kind of server. ``what``: what it should have answered, and how."""
    node = done.endpoint
    said = done.hide(why)
    return BadAnswer(f"{node.name} ({node.url}) did not answer {what}: {said}; is {service!r} the right service?")


def refused(done: Done, service: str, what: str) -> BadInput | AccessDenied | CallFailed | BadAnswer:
    """Return the error for an answer that is no 2xx; ``what`` as for ``foreign``."""
    answer, name = done.answer, done.endpoint.name
    refusal = _refusal(done)
    said = " ".join(refusal.error.split())[:LONGEST] or f"HTTP {answer.status}"
    node = refusal.node or name
    if answer.status in {404, 405} and not refusal.error:
        return foreign(done, service, what, said)
    if answer.status in {401, 403}:
        remedy = f"set {FILE} to a file with a token it takes"
        message = f"{node} refuses access: {said}; {remedy}"
        return AccessDenied(message, status=answer.status, reason=refusal.reason, node=node)
    if answer.status == 429 or answer.status >= 500:
        error = DeadlineExceeded if answer.status == 504 else CallFailed
        last = Attempt(name, f"HTTP {answer.status}", done.last_milliseconds)
        return error(f"{node}: {said}", (*done.failures, last))
    if answer.status >= 400:
        others = "; ".join(map(str, done.failures)) if answer.status == 404 else ""
        message = f"{node}: {said}" + (f" ({others})" if others else "")
        return BadInput(message, status=answer.status, reason=refusal.reason, node=node)
    return foreign(done, service, what, said)


def _refusal(done: Done) -> _Refusal:
    try:
        said = _REFUSAL.decode(done.answer.body)
    except UNREADABLE:
        return _Refusal()
    return _Refusal(done.hide(said.error), done.hide(said.reason), done.hide(said.node))
