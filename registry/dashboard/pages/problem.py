"""What stands on the page when something was refused or failed: what it is, one sentence, and where to go on. Pure."""

from typing import Any

from registry.dashboard.address import link
from registry.dashboard.reply import local

_OTHERWISE = "This did not work"
_TITLES = {
    400: "This address cannot be read",
    401: "Not signed in",
    403: "Not allowed",
    404: "Nothing is here",
    405: "Not this way",
    409: "It is another by now",
    413: "Too much at once",
    415: "Not in this form",
    429: "Too often",
    500: "The dashboard failed at this",
    503: "Not now",
}


def variables(status: int, sentence: str, back: str = "/") -> dict[str, Any]:
    """Return the variables of ``problem.html``. ``back``: the address that it began on."""
    href, words = _next(status, local(back))
    return {
        "title": _TITLES.get(status, _OTHERWISE),
        "status": status,
        "sentence": said(sentence) or "There is no more to say about it here.",
        "href": href,
        "words": words,
    }


def said(sentence: str) -> str:
    """Return what an error says as a sentence that stands alone."""
    sentence = sentence.strip()
    ended = sentence if not sentence or sentence.endswith((".", "?", "!", "…")) else f"{sentence}."
    return ended[:1].upper() + ended[1:]


def _next(status: int, back: str) -> tuple[str, str]:
    if status == 401:
        return link("/sign-in", [("back", back)]), "Sign in"
    return (link("/"), "To the overview") if back == "/" else (link(back), "Back to where you were")
