"""One line out of what a foreign library raises.

Loaders and converters raise whatever a file provokes, pages of it; the first line that says something is shown.
"""

_LONGEST = 300


def summary(error: BaseException) -> str:
    """Return the first line of an error's text, at most 300 characters; its type where it has none."""
    return first_line(str(error)) or type(error).__name__


def first_line(text: str) -> str:
    """Return the first line that is not empty, at most 300 characters; an empty string where there is none."""
    return next((line.strip()[:_LONGEST] for line in text.splitlines() if line.strip()), "")
