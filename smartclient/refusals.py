"""Answers that are not the one asked for: a node's refusal in its own words, or some other server's.

For calls that know what they want back (``inference``, ``tensors``); plain ``request()`` hands any answer on as it is.
A refusal's body is ``{"error": …}``, here and in the Open Inference Protocol; our nodes add ``reason``, ``node``.
"""

import msgspec

from smartclient.call import Done
from smartclient.errors import Attempt, BadAnswer, BadInput, CallFailed, DeadlineExceeded
from smartclient.transport import Answer


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
    return BadAnswer(f"{node.name} ({node.url}) did not answer {what}: {why}; is {service!r} the right service?")


def refused(done: Done, service: str, what: str) -> BadInput | CallFailed | BadAnswer:
    """Return the error for an answer that is no 2xx; ``what`` as for ``foreign``."""
    answer, name = done.answer, done.endpoint.name
    refusal = _refusal(answer)
    said = " ".join(refusal.error.split())[:LONGEST] or f"HTTP {answer.status}"
    node = refusal.node or name
    if answer.status in {404, 405} and not refusal.error:
        return foreign(done, service, what, said)
    if answer.status == 429 or answer.status >= 500:
        error = DeadlineExceeded if answer.status == 504 else CallFailed
        last = Attempt(name, f"HTTP {answer.status}", done.last_milliseconds)
        return error(f"{node}: {said}", (*done.failures, last))
    if answer.status >= 400:
        return BadInput(f"{node}: {said}", status=answer.status, reason=refusal.reason, node=node)
    return foreign(done, service, what, said)


def _refusal(answer: Answer) -> _Refusal:
    try:
        return _REFUSAL.decode(answer.body)
    except UNREADABLE:
        return _Refusal()
