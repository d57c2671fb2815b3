"""Regular expressions whose time grows with the text only, for patterns that strangers send.

Consul matches with Go's ``regexp`` (RE2's syntax), which never backtracks; Python's ``re`` does, and one short pattern
can hold it for ever. This is the common part of RE2: literals, ``.``, classes, ``\\d \\w \\s``, groups, ``|``,
``* + ? {n,m}``, ``^ $ \\A \\z`` and a leading ``(?i)``. Anything else is refused. A pattern becomes a
nondeterministic automaton (K. Thompson, 1968), whose sets of states are remembered as they are met. Pure.
"""

import re
from collections.abc import Callable

# RE2's bound for {n,m}, and one for what a whole pattern may become.
_MOST_REPEATS = 1000
_MOST_STATES = 2000
_MOST_REMEMBERED = 2000
_DEEPEST = 50
_POSIX = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "0-9A-Za-z", "lower": "a-z", "upper": "A-Z", "space": r"\t\n\v\f\r ",
    "punct": r"!-/:-@\[-`{-~", "xdigit": "0-9A-Fa-f", "word": r"\w",
}  # fmt: skip
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_COUNT = re.compile(r"\{([0-9]{1,9})(?:(,)([0-9]{0,9}))?\}")
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")

_Test = Callable[[str], object]
# A state is a test of one character (to the first target), an anchor, or a fork.
_State = tuple[_Test | str | None, list[int]]


class BadPattern(ValueError):
    """The pattern is none, or uses what is not supported here."""


class Pattern:
    """A compiled pattern. Raises ``BadPattern``."""

    def __init__(self, pattern: str) -> None:
        compiler = _Compiler(pattern)
        self._states = compiler.states
        self._final = compiler.final
        self._initial = self._closure({compiler.initial}, "^")
        # Without the start anchor, as every later position sees it.
        self._again = self._closure({compiler.initial}, "")
        self._next: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def search(self, text: str) -> bool:
        """Whether the pattern occurs anywhere in the text."""
        current = self._initial
        for character in text:
            if self._final in current:
                return True
            following = self._next.get((current, character))
            if following is None:
                following = self._step(current, character)
            current = following
        return self._final in current or self._final in self._closure(set(current), "$" if text else "^$")

    def _step(self, current: frozenset[int], character: str) -> frozenset[int]:
        met = set()
        for number in current:
            test, targets = self._states[number]
            if callable(test) and test(character):
                met.update(targets)
        if len(self._next) >= _MOST_REMEMBERED:
            self._next.clear()
        following = self._next[current, character] = self._closure(met, "") | self._again
        return following

    def _closure(self, found: set[int], anchors: str) -> frozenset[int]:
        """All states reached without a character, through the anchors that hold here."""
        todo = list(found)
        while todo:
            test, targets = self._states[todo.pop()]
            if test is None or (isinstance(test, str) and test in anchors):
                todo += [target for target in targets if target not in found]
                found.update(targets)
        return frozenset(found)


class _Compiler:
    """Reads a pattern by descent; parts are (first state, list of open ends)."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._flags = re.ASCII | re.DOTALL
        self.states: list[_State] = []
        if flags := re.match(r"\(\?([is]+)\)", pattern):
            self._at = flags.end()
            self._flags |= re.IGNORECASE if "i" in flags[1] else 0
            newline = "s" in flags[1]
        else:
            newline = False
        self._dot = r"." if newline else r"[^\n]"
        self.initial = self._alternatives()
        if self._at < len(pattern):
            raise BadPattern("unexpected )")
        self.final = self._add(None, [])
        self._join(self._end, self.final)

    # Every part is built from its first state on and leaves its last one, a fork with no target yet, in ``_end``.
    _end = 0

    def _add(self, test: _Test | str | None, targets: list[int]) -> int:
        if len(self.states) >= _MOST_STATES:
            raise BadPattern("the expression is too large")
        self.states.append((test, targets))
        return len(self.states) - 1

    def _join(self, state: int, target: int) -> None:
        self.states[state][1].append(target)

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _alternatives(self) -> int:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BadPattern("the expression nests too deeply")
        first, end = self._add(None, []), self._add(None, [])
        while True:
            self._join(first, self._sequence())
            self._join(self._end, end)
            if self._peek() != "|":
                break
            self._at += 1
        self._end = end
        self._depth -= 1
        return first

    def _sequence(self) -> int:
        first = last = self._add(None, [])
        while self._peek() not in {"", "|", ")"}:
            self._join(last, self._repeated())
            last = self._end
        self._end = last
        return first

    def _repeated(self) -> int:
        begun = self._at
        part = self._atom()
        ended = self._at
        least, most = self._count()
        if (least, most) == (1, 1):
            return part
        if max(least, most or 0) > _MOST_REPEATS:
            raise BadPattern("a repeat count is too large")
        return self._copies(begun, ended, least, most)

    def _count(self) -> tuple[int, int | None]:
        """How often the last part may come; a second count is refused, as in RE2."""
        known: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        found = known.get(self._peek())
        counted = None if found else _COUNT.match(self._pattern, self._at)
        if counted:
            least = int(counted[1])
            found = (least, least if not counted[2] else int(counted[3]) if counted[3] else None)
            if found[1] is not None and found[1] < least:
                raise BadPattern("a repeat count is upside down")
        if found is None:
            return 1, 1
        self._at += len(counted[0]) if counted else 1
        if self._peek() == "?":  # lazy or not, the same texts match
            self._at += 1
        if (self._peek() or "x") in "*+?" or _COUNT.match(self._pattern, self._at):
            raise BadPattern("nested repetition")
        return found

    def _copies(self, begun: int, ended: int, least: int, most: int | None) -> int:
        """Chain copies of the part between two places: needed ones, then optional ones or a loop."""
        resume = self._at
        first = last = self._add(None, [])
        end = self._add(None, [])
        for number in range(least if most is None else most):
            if number >= least:
                self._join(last, end)
            self._join(last, self._again(begun, ended))
            last = self._end
        if most is None:
            loop = self._add(None, [])
            self._join(last, loop)
            self._join(loop, self._again(begun, ended))
            self._join(self._end, loop)
            last = loop
        self._join(last, end)
        self._at, self._end = resume, end
        return first

    def _again(self, begun: int, ended: int) -> int:
        self._at = begun
        part = self._atom()
        self._at = ended
        return part

    def _atom(self) -> int:
        character = self._peek()
        self._at += 1
        if character == "(":
            if group := re.compile(r"\?(?::|P?<[A-Za-z_][A-Za-z0-9_]*>)").match(self._pattern, self._at):
                self._at = group.end()
            elif self._peek() == "?":
                raise BadPattern("only (?:…), (?P<name>…) and a leading (?i) are supported")
            part = self._alternatives()
            if self._peek() != ")":
                raise BadPattern("missing )")
            self._at += 1
            return part
        if character in {"*", "+", "?"}:
            raise BadPattern(f"nothing to repeat before {character}")
        if character in {"^", "$"}:
            return self._single(character)
        if character == ".":
            return self._one(self._dot)
        if character == "[":
            return self._one(self._set())
        if character == "\\":
            return self._escape()
        return self._one(re.escape(character))

    def _escape(self) -> int:
        character = self._peek()
        self._at += 1
        if character in {"A", "z"}:
            return self._single("^" if character == "A" else "$")
        return self._one(_escaped(character))

    def _set(self) -> str:
        """Spell a class in ``re``'s way; the opening bracket is behind."""
        text = "["
        if self._peek() == "^":
            text, self._at = "[^", self._at + 1
        empty = True
        while empty or self._peek() != "]":
            empty = False
            character = self._peek()
            if not character:
                raise BadPattern("missing ]")
            if posix := _POSIX_CLASS.match(self._pattern, self._at):
                if posix[1] or posix[2] not in _POSIX:
                    raise BadPattern(f"invalid character class {posix[0]}")
                text += _POSIX[posix[2]]
                self._at = posix.end()
                continue
            self._at += 1
            if character == "\\":
                text += _escaped(self._peek())
                self._at += 1
            else:
                text += character if character == "-" else re.escape(character)
        self._at += 1
        return text + "]"

    def _one(self, expression: str) -> int:
        """Match one character by a class or an escaped literal; ``re`` has nothing to go back over in it."""
        try:
            return self._single(re.compile(expression, self._flags).fullmatch)
        except re.error as error:
            raise BadPattern(error.msg) from error

    def _single(self, test: _Test | str) -> int:
        self._end = self._add(None, [])
        return self._add(test, [self._end])


def _escaped(character: str) -> str:
    if character in set("dwsDWS"):
        return f"\\{character}"
    if character in _CONTROLS:
        return re.escape(_CONTROLS[character])
    if not character or character.isalnum() or not character.isascii():
        raise BadPattern(f"the escape \\{character} is not supported")
    return re.escape(character)
