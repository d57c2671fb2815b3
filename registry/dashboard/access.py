"""Who may act through the dashboard: nobody, until it is given operator tokens; then whoever signs in with one.

A browser sends its cookies along with whatever a foreign page makes it send. So an action is a POST from a page of this
very origin, with a session and with that session's own secret in the form. Sessions live in memory, for 12 hours or
until idle for one; a restart ends them. A token that is rotated out ends no session that was begun with it: it is the
right to sign in, so to lock somebody out, take the token away and restart. Cookies know no ports: two dashboards on one
host name share theirs, and signing in to one signs out of the other.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque

import msgspec

from registry.timing import Clock
from registry.token import Tokens

COOKIE = "twostep_session"
# Seconds that a session lasts, and that it may lie idle.
LASTS = 12 * 3600.0
IDLE = 3600.0
MOST_SESSIONS = 1000
# So many failed sign-ins within so many seconds, by everybody together.
ATTEMPTS = 10
WINDOW = 60.0
LONGEST_NAME = 64


class Refused(Exception):
    """May not be done: the HTTP status, and a sentence for people."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has signed in: ``name`` acts, ``csrf`` goes into every form, ``cookie`` is the cookie's value.

    ``begun``: monotonic seconds.
    """

    name: str
    csrf: str
    cookie: str
    begun: float

    def __repr__(self) -> str:
        return f"Session(name={self.name!r})"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of a request: ``origin``, ``host`` as its headers say, ``csrf`` of its form; None: not given.

    ``scheme`` is the one the browser used, which a proxy in front may have to tell.
    """

    method: str
    scheme: str
    host: str | None
    origin: str | None
    cookie: str | None = None
    csrf: str | None = None


class Access:
    """``tokens``: the operators'; None: read-only. ``reports``: what clients report with; None: anybody may."""

    def __init__(self, tokens: Tokens | None, *, clock: Clock, reports: Tokens | None = None) -> None:
        self._tokens = tokens
        self._reports = reports
        self._clock = clock
        self._failed: deque[float] = deque(maxlen=ATTEMPTS)
        # By a digest of the cookie, so that how long a look-up takes tells nothing; the longest idle first.
        self._sessions: OrderedDict[bytes, tuple[Session, float]] = OrderedDict()

    @property
    def read_only(self) -> bool:
        """Whether nobody can act, since there are no operator tokens."""
        return self._tokens is None

    def sign_in(self, offered: str, name: str) -> Session | None:
        """Begin a session, None when the token is wrong. Raises ``Refused``: read-only, the name, too many attempts."""
        if self._tokens is None:
            raise _read_only()
        name = name.strip()
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise Refused(400, f"say who you are: a name of 1 to {LONGEST_NAME} printable characters")
        now = self._clock.monotonic()
        if len(self._failed) == ATTEMPTS and now - self._failed[0] < WINDOW:
            raise Refused(429, "too many attempts; wait a minute")
        if not self._tokens.accept(offered.strip()):
            self._failed.append(now)
            return None
        session = Session(name=name, csrf=secrets.token_urlsafe(32), cookie=secrets.token_urlsafe(32), begun=now)
        self._sessions[_digest(session.cookie)] = (session, now)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def session(self, cookie: str | None) -> Session | None:
        """Who has this cookie, None for one that is forged, too old, or idle for too long; it is in use from now."""
        if not cookie:
            return None
        key = _digest(cookie)
        session, used = self._sessions.get(key, (None, 0.0))
        if session is None:
            return None
        now = self._clock.monotonic()
        if now - session.begun >= LASTS or now - used >= IDLE:
            del self._sessions[key]
            return None
        self._sessions[key] = (session, now)
        self._sessions.move_to_end(key)
        return session

    def sign_out(self, cookie: str | None) -> None:
        """End a session; where there is none, nothing happens."""
        self._sessions.pop(_digest(cookie or ""), None)

    def check_action(self, facts: Facts) -> Session:
        """Return who acts. Raises ``Refused`` unless this request may change something."""
        self.check_sign_in(facts)
        session = self.session(facts.cookie)
        if session is None:
            raise Refused(401, "sign in first")
        if not _same(facts.csrf or "", session.csrf):
            raise Refused(403, "this form is not of your session: load the page again")
        return session

    def check_sign_in(self, facts: Facts) -> None:
        """Raise ``Refused`` unless this is a POST from a page of this dashboard; so much holds without a session."""
        if facts.method != "POST":
            raise Refused(405, "this takes POST: use the button on the page")
        if self._tokens is None:
            raise _read_only()
        check_origin(facts)

    def bearer_ok(self, header: str | None) -> bool:
        """Whether a report with this ``Authorization`` header is taken."""
        if self._reports is None:
            return True
        scheme, _, token = (header or "").strip().partition(" ")
        return scheme.lower() == "bearer" and self._reports.accept(token.strip())


def check_origin(facts: Facts) -> None:
    """Raise ``Refused`` unless a page of this very dashboard sent this."""
    own = f"{facts.scheme}://{facts.host}".lower()
    if not facts.host or not facts.origin or facts.origin.lower() != own:
        raise Refused(403, "this came from no page of this dashboard: open the dashboard itself and try there")


def cookie(value: str, secure: bool) -> str:
    """Return the ``Set-Cookie`` header that gives a browser its session; an empty value takes it away."""
    lasts = int(LASTS) if value else 0
    return f"{COOKIE}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")


def _read_only() -> Refused:
    return Refused(403, "this dashboard is read-only: start it with --operator-token-file")


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())
