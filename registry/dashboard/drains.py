"""Carries out orders to drain nodes and to call them back, by asking each node itself.

The node knows best: it tells the registry, goes on answering for a grace, then refuses new work, and here it is asked
how many requests are inside until there are none. It is done when it refuses and is empty; empty alone may be a lull
before clients have heard. At most ``AT_ONCE`` nodes are asked to drain at a time, and as many asked how far they are;
with many draining the looks grow rarer. The token goes to the registered address of an instance and nowhere else.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TypeVar

import aiohttp
import msgspec

from registry.dashboard.asking import Answer, Asker, NoAnswer
from registry.dashboard.guard import steerable
from registry.dashboard.model import Event, Kind, Service
from registry.dashboard.orders import Order, Stage, Step, Verb, inside
from registry.model import Instance
from registry.timing import Clock
from registry.token import Token
from registry.waiting import cancel
from registry.wording import printable

T = TypeVar("T")

AT_ONCE = 10
# Seconds: for one answer, between two looks, for the requests inside to end.
TIMEOUT = 5.0
EVERY = 0.5
DEADLINE = 120.0
# Looks a second at all nodes together.
_LOOKS = 100.0
_MOST_BYTES = 64 * 1024
_MOST_ORDERS = 100
# So many looks without an answer, one after another, and a node counts as gone.
_MISSES = 3


class _Held(msgspec.Struct):
    requests: int


class _State(msgspec.Struct):
    """What is read of a node's answer; without ``refusing`` an empty node counts as done."""

    held: _Held
    state: str = "draining"
    refusing: bool = True


class _Error(msgspec.Struct):
    error: str = ""


class _Ended(Exception):
    """This instance goes no further."""

    def __init__(self, stage: Stage, reason: str, inflight: int | None = None) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
        self.inflight = inflight


class _Running:
    """One order under way; ``order`` is how it stands, built anew only when a step has changed."""

    def __init__(self, order: Order) -> None:
        self.head = order
        self.steps = dict(order.steps)
        self._order: Order | None = order

    @property
    def order(self) -> Order:
        if self._order is None:
            self._order = msgspec.structs.replace(self.head, steps=dict(self.steps))
        return self._order

    def put(self, instance: str, step: Step) -> None:
        self.steps[instance] = step
        self._order = None


class Drains:
    """``token``: the nodes' admin token. ``on_event`` hears of the start and of every instance's end.

    ``session`` and ``tls`` (for https nodes) are the connections to use; None: its own, the default trust.
    """

    def __init__(
        self,
        token: Token,
        *,
        clock: Clock,
        on_event: Callable[[Event], None],
        session: aiohttp.ClientSession | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._token = token
        self._clock = clock
        self._on_event = on_event
        self._asker = Asker(clock=clock, seconds=TIMEOUT, most=_MOST_BYTES, session=session, tls=tls)
        self._orders: dict[str, _Running] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._looking = asyncio.Semaphore(AT_ONCE)

    def start(self, kind: Verb, service: Service, ids: Iterable[str], *, reason: str, who: str) -> Order:
        """Begin an order and return it; whether it may be done has been judged before (``guard``)."""
        self._count += 1
        now = self._clock.time()
        chosen = tuple(dict.fromkeys(ids))
        running = _Running(
            Order(
                id=str(self._count),
                kind=kind,
                service=service.name,
                who=who,
                why=reason,
                begun_at=now,
                steps={each: Step(stage=Stage.WAITING, at=now) for each in chosen},
            )
        )
        self._orders[running.head.id] = running
        self._forget()
        whom = printable(chosen[0], 80) if len(chosen) == 1 else f"{len(chosen)} of {printable(service.name, 80)}"
        words = f"{_verb(running)} {whom}: {printable(reason)}"
        self._tell(running, Kind.ACTION, words, chosen[0] if len(chosen) == 1 else "")
        for each in chosen:
            member = service.by_id.get(each)
            if member is None:
                self._end(running, each, _Ended(Stage.GONE, "it is not registered any more"))
            elif not steerable(member):
                self._end(running, each, _Ended(Stage.REFUSED, "it takes no orders: it is no Twostep node"))
            else:
                task = asyncio.ensure_future(self._follow(running, member.instance))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return running.order

    def order(self, order_id: str) -> Order | None:
        """One order as it stands, None when there is no such, or no more."""
        running = self._orders.get(order_id)
        return None if running is None else running.order

    def orders(self) -> tuple[Order, ...]:
        """The last hundred, newest first."""
        return tuple(each.order for each in reversed(self._orders.values()))

    def of(self, service: str, instance: str) -> Order | None:
        """The newest order about an instance."""
        for each in reversed(self._orders.values()):
            if each.head.service == service and instance in each.steps:
                return each.order
        return None

    async def close(self) -> None:
        """End everything; what a node has been asked for it does all the same."""
        for task in tuple(self._tasks):
            await cancel(task)
        await self._asker.close()

    async def _follow(self, running: _Running, instance: Instance) -> None:
        """See one instance to its end, whatever that is."""
        ended = _Ended(Stage.REFUSED, "the dashboard ended before it was done")
        try:
            inflight = await self._carry_out(running, instance)
            ended = _Ended(Stage.DONE, "", inflight)
        except _Ended as error:
            ended = error
        finally:
            self._end(running, instance.id, ended)

    async def _carry_out(self, running: _Running, instance: Instance) -> int | None:
        """Return the requests inside at the end. Raises ``_Ended``."""
        kind = running.head.kind
        async with self._asking:
            self._put(running, instance.id, Stage.ASKED)
            body = {"reason": running.head.why} if kind == "drain" else {}
            try:
                answer = await self._ask(instance, "POST", f"/admin/{kind}", body)
            except NoAnswer as error:
                raise _Ended(Stage.REFUSED, str(error)) from error
        state = self._state(answer, f"/admin/{kind}")
        if kind == "undrain":
            return state.held.requests
        deadline = self._clock.monotonic() + DEADLINE
        misses = 0
        while not (state.held.requests == 0 and state.refusing):
            self._put(running, instance.id, Stage.DRAINING, state.held.requests)
            await self._clock.sleep(max(EVERY, len(self._tasks) / _LOOKS))
            if self._clock.monotonic() >= deadline:
                raise _Ended(Stage.OVERDUE, inside(state.held.requests), state.held.requests)
            try:
                async with self._looking:
                    answer = await self._ask(instance, "GET", "/admin/state")
            except NoAnswer as error:
                misses += 1
                if misses == _MISSES:
                    raise _Ended(Stage.GONE, f"it answers no more: {error}", state.held.requests) from error
                continue
            misses = 0
            state = self._state(answer, "/admin/state")
            if state.state not in ("draining", "stopped"):
                raise _Ended(Stage.REFUSED, "it was called back meanwhile", state.held.requests)
        return 0

    async def _ask(self, instance: Instance, method: str, path: str, body: object = None) -> Answer:
        return await self._asker.ask(instance, method, path, token=self._token.read(), body=body)

    def _state(self, answer: Answer, path: str) -> _State:
        """What an answer says. Raises ``_Ended`` when it is a refusal, or no answer of a Twostep node."""
        if answer.status != HTTPStatus.OK:
            raise _Ended(Stage.REFUSED, self._refusal(answer, path))
        state = _read(answer.body, _State)
        if state is None or not 0 <= state.held.requests < 1_000_000_000:
            raise _Ended(Stage.REFUSED, "what it answered cannot be understood: is it a Twostep node?")
        return state

    def _refusal(self, answer: Answer, path: str) -> str:
        """A refusal in one line: what the node says of it, without the token, or what is known of the status."""
        status = answer.status
        if status == HTTPStatus.UNAUTHORIZED:
            what = "it refused the dashboard's token" if self._token.read() else "it asks for a token"
            return f"{what} ({status}): start the dashboard with the nodes' admin token"
        if 300 <= status < 400:
            return f"it points elsewhere ({status}), where the dashboard does not follow"
        if status == HTTPStatus.NOT_FOUND:
            return f"it has no {path} ({status}): is it a Twostep node?"
        said = _read(answer.body, _Error)
        words = printable(self._token.hide(said.error)) if said is not None else ""
        return f"it refused ({status}): {words or 'it does not say why; look at its log'}"

    def _put(self, running: _Running, instance: str, stage: Stage, inflight: int | None = None) -> None:
        before = running.steps[instance]
        if (before.stage, before.inflight) != (stage, inflight):
            running.put(instance, Step(stage=stage, at=self._clock.time(), inflight=inflight))

    def _end(self, running: _Running, instance: str, ended: _Ended) -> None:
        step = Step(stage=ended.stage, at=self._clock.time(), inflight=ended.inflight, reason=ended.reason)
        running.put(instance, step)
        name = printable(instance, 80)
        if ended.stage is Stage.DONE and running.head.kind == "drain":
            self._tell(running, Kind.DRAINED, f"{name} is drained", instance)
        elif ended.stage is Stage.DONE:
            self._tell(running, Kind.UNDRAINED, f"{name} is called back", instance)
        else:
            self._tell(running, Kind.ACTION, f"{_verb(running)} {name}, {step.words}", instance)

    def _tell(self, running: _Running, kind: Kind, words: str, instance: str) -> None:
        head = running.head
        self._on_event(
            Event(
                at=self._clock.time(),
                kind=kind,
                words=words,
                service=head.service,
                instance=instance,
                who=head.who,
                why=head.why,
            )
        )

    def _forget(self) -> None:
        """Keep the list short; what has ended goes first, and what goes is carried out all the same."""
        while len(self._orders) > _MOST_ORDERS:
            over = (key for key, each in self._orders.items() if each.order.ended)
            del self._orders[next(over, next(iter(self._orders)))]


def _verb(running: _Running) -> str:
    return f"{printable(running.head.who, 80)} {running.head.kind}s"


def _read(body: bytes, form: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
