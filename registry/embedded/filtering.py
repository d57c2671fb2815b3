"""Consul's ``?filter``: boolean expressions over the JSON of an answer, as its documentation on filtering gives them.

``Selector == value``, ``!=``, ``contains``, ``not contains``, ``matches``, ``not matches``, ``is empty``,
``is not empty``, ``value in Selector``, ``value not in Selector``, joined by ``and``, ``or``, ``not`` and parentheses.
A selector that runs through a list (``Checks.Status``) holds when it holds for one element. ``Fields`` says what an
answer can be asked for, so that a wrong selector is refused over an empty answer too. Pure.
"""

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from registry.embedded.definitions import BadRequest
from registry.embedded.regex import BadPattern, Pattern

Predicate = Callable[[Any], bool]

_DEEPEST = 50
_LONGEST = 8192
_S = r"[ \t\r\n]"
_STEP = re.compile(rf"\.([a-zA-Z][a-zA-Z0-9_]*)|\[{_S}*(?=[\"`])")
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_BARE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*(?:\.[a-zA-Z][a-zA-Z0-9_]*)*|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![\w.])")
_QUOTED = re.compile(r'`[^`]*`|"(?:[^"\\\n]|\\.)*"')
# What Go allows after a backslash between double quotes.
_STRING = re.compile(r'"(?:[^\\]|\\(?:[abfnrtv\\"]|x[0-9a-fA-F]{2}|[0-7]{3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}))*"')
_NOT = re.compile(rf"not{_S}+(?!in{_S})")
_SPACE, _CLOSE_INDEX, _CLOSE, _END = (re.compile(rf"{_S}*{end}") for end in ("", r"\]", r"\)", r"\Z"))
_COMPARISON = re.compile(
    rf"{_S}*(?P<equal>[=!]=){_S}*|{_S}+(?:is{_S}+(?P<empty>not{_S}+empty|empty)|(?P<word>(?:not{_S}+)?(?:contains|matches)){_S}+)"
)
_MEMBERSHIP = re.compile(rf"{_S}+(not{_S}+)?in{_S}+")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18})")
_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}


class ListOf(msgspec.Struct, frozen=True):
    """A JSON array whose elements are all of one kind."""

    of: Any


class MapOf(msgspec.Struct, frozen=True):
    """A JSON object with keys of the user's own and values of one kind."""

    of: Any


class Fields(msgspec.Struct, frozen=True):
    """A JSON object with known keys; a kind is ``str``, ``int``, ``bool`` or one of these three."""

    by_name: Mapping[str, Any]


def predicate(expression: str, fields: Fields) -> Predicate:
    """Return what tells the elements that satisfy the expression. Raises ``BadRequest``."""
    if len(expression) > _LONGEST:
        raise _refusal(f"it is longer than {_LONGEST} characters")
    return _Parser(expression, fields).whole()


class _Parser:
    """Reads an expression by descent, from ``_at`` on."""

    def __init__(self, text: str, fields: Fields) -> None:
        self._text = text
        self._fields = fields
        self._at = 0
        self._depth = 0

    def whole(self) -> Predicate:
        self._take(_SPACE)
        found = self._either()
        if not self._take(_END):
            raise self._unexpected()
        return found

    def _either(self) -> Predicate:
        return self._joined("or", lambda: self._joined("and", self._negation, all), any)

    def _joined(self, word: str, part: Callable[[], Predicate], decide: Callable[[Any], bool]) -> Predicate:
        parts = [part()]
        joint = re.compile(rf"{_S}+{word}{_S}+")
        while self._take(joint):
            parts.append(part())
        return parts[0] if len(parts) == 1 else lambda value: decide(each(value) for each in parts)

    def _negation(self) -> Predicate:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refusal("it nests too deeply")
        if self._take(_NOT):
            inner = self._negation()
            found: Predicate = lambda value: not inner(value)  # noqa: E731 - one of three ways to the same name
        elif self._text.startswith("(", self._at):
            self._at += 1
            self._take(_SPACE)
            found = self._either()
            if not self._take(_CLOSE):
                raise _refusal("unmatched parentheses")
        else:
            found = self._match()
        self._depth -= 1
        return found

    def _match(self) -> Predicate:
        begun = self._at
        path = self._path()
        comparison = self._take(_COMPARISON) if path else None
        if comparison:
            operator = " ".join((comparison["equal"] or comparison["empty"] or comparison["word"]).split())
            value = "" if comparison["empty"] else self._value()
            return self._leaf(path, operator.removeprefix("not "), value, "!" in operator or "not" in operator)
        self._at = begun
        value = self._value()
        membership = self._take(_MEMBERSHIP)
        path = self._path() if membership else []
        if not membership or not path:
            raise self._unexpected()
        return self._leaf(path, "in", value, membership[1] is not None)

    def _path(self) -> list[str]:
        """Read a selector, empty if there is none."""
        first = self._take(_IDENTIFIER)
        path = [first[0]] if first else []
        while first and (step := self._take(_STEP)):
            path.append(step[1] or self._value())
            if step[1] is None and not self._take(_CLOSE_INDEX):
                raise self._unexpected()
        return path

    def _value(self) -> str:
        if bare := self._take(_BARE):
            return bare[0]
        quoted = self._take(_QUOTED)
        if quoted is None:
            raise self._unexpected()
        if quoted[0].startswith("`"):
            return quoted[0][1:-1]
        try:
            return str(ast.literal_eval(_STRING.fullmatch(quoted[0])[0]))  # type: ignore[index]
        except (TypeError, SyntaxError, ValueError):
            raise _refusal(f"invalid string {quoted[0]}") from None

    def _leaf(self, path: list[str], operator: str, value: str, negated: bool) -> Predicate:
        # Half of Consul's operators are the other half's opposites, element by element.
        operator = {"==": "==", "!=": "==", "contains": "in"}.get(operator, operator)
        name = ".".join(path)

        def test(kind: Any) -> Predicate:
            holds = _test(kind, operator, value, name)
            return (lambda found: not holds(found)) if negated else holds

        # A key that is not there is like nothing else.
        return _follow(self._fields, path, test, absent=negated, name=name)

    def _take(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _unexpected(self) -> BadRequest:
        rest = self._text[self._at : self._at + 20]
        return _refusal(f"unexpected {rest!r} at character {self._at + 1}" if rest else "it ends too soon")


def _follow(kind: Any, path: list[str], test: Callable[[Any], Predicate], *, absent: bool, name: str) -> Predicate:
    """Lead a test from the whole element along the path."""
    if not path:
        return test(kind)
    if isinstance(kind, ListOf):
        inner = _follow(kind.of, path, test, absent=absent, name=name)
        return lambda value: any(inner(each) for each in value)
    key = path[0]
    if isinstance(kind, MapOf):
        inner = _follow(kind.of, path[1:], test, absent=absent, name=name)
        return lambda value: inner(value[key]) if key in value else absent
    if isinstance(kind, Fields) and key in kind.by_name:
        inner = _follow(kind.by_name[key], path[1:], test, absent=absent, name=name)
        nothing = _nothing(kind.by_name[key])
        return lambda value: inner(value.get(key, nothing))
    raise _refusal(f'Selector "{name}" is not valid')


def _test(kind: Any, operator: str, value: str, name: str) -> Predicate:
    if operator == "empty" and isinstance(kind, ListOf | MapOf):
        return lambda found: not found
    if operator == "matches" and kind is str:
        try:
            return Pattern(value).search
        except BadPattern as error:
            raise _refusal(f'Failed to compile regular expression "{value}": {error}') from error
    if operator == "in" and kind is str:
        return lambda found: value in found
    if operator == "in" and (isinstance(kind, MapOf) or (isinstance(kind, ListOf) and kind.of is str)):
        return lambda found: value in found
    if operator == "==" and isinstance(kind, type):
        wanted = _coerced(value, kind, name)
        return lambda found: bool(found == wanted)
    raise _refusal(f'Invalid match operator "{operator}" for selector "{name}"')


def _coerced(value: str, kind: type, name: str) -> str | int | bool:
    if kind is str:
        return value
    if kind is bool and value in _TRUE | _FALSE:
        return value in _TRUE
    if kind is int and _INTEGER.fullmatch(value):
        return int(value, 0)
    raise _refusal(f'Failed to coerce value "{value}" for selector "{name}"')


def _nothing(kind: Any) -> Any:
    """What Go has where nothing was given."""
    return [] if isinstance(kind, ListOf) else {} if isinstance(kind, MapOf | Fields) else kind()


def _refusal(why: str) -> BadRequest:
    return BadRequest(f"Failed to create boolean expression evaluator: {why}")
