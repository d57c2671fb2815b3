"""The variables of the sign-in form. Pure; ``access`` decides who may come in."""

from typing import Any

from markupsafe import Markup

from registry.dashboard.pages.problem import said
from registry.dashboard.reply import local


def variables(back: str, refused: str = "", *, can_act: bool, who: str = "") -> dict[str, Any]:
    """Return them. ``back``: where to go on, if that is in this dashboard.

    ``refused``: why it was not done, for whoever said they are ``who``. ``can_act`` False: there is no operator token,
    so nobody can sign in.
    """
    return {
        "title": "Sign in",
        "back": Markup.escape(local(back)),
        "refused": said(refused),
        "can_act": can_act,
        "who": who[:64],
    }
