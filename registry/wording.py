"""Text for people: what others wrote, made harmless; and lengths of time."""

_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def printable(text: str, most: int = 200) -> str:
    """Return the first line with something on it, at most ``most`` characters long, ``escaped``."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    shown = escaped(line[: most + 1])
    return shown if len(shown) <= most else shown[: max(0, most - 1)] + "…"


def escaped(text: str) -> str:
    """Return the whole of it, fit for any terminal and on one line.

    What does not print (escape sequences, tabs, marks that turn the writing direction) is shown as Python would
    write it: ``\\x1b``, ``\\u202e``.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def length(seconds: float) -> str:
    """Return a length of time in its largest unit that is not below 1.5: ``89 s``, ``2 min``, ``26 h``, ``3 d``."""
    for unit, name in _UNITS:
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.1f} s"
