"""``AsyncSmartClient``: look a service up once, watch it, and send each request straight to one of its nodes.

The façade: it constructs the parts (cache, balancer, transport, caller) and wires them; each decision is theirs. One
client is for one service and one event loop; making one sends nothing. ``close()`` (or ``async with``) gives back the
watch and the connections; a ``Directory`` or ``Transport`` that was handed in is left open for its owner.
"""

import asyncio
import os
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self, Unpack

import msgspec

from registry.connect import connect
from registry.directory import Directory
from registry.errors import RegistryError
from registry.timing import Clock, SystemClock
from smartclient import inference, tensors
from smartclient.aiohttp_transport import AiohttpTransport
from smartclient.attempt import CONNECT_TIMEOUT, Sender
from smartclient.balancer import Balancer
from smartclient.bearer import Bearer
from smartclient.breaker import EjectionRule
from smartclient.cache import DiscoveryCache
from smartclient.call import Caller, Done, Limits
from smartclient.endpoint import SlowStart
from smartclient.errors import BadInput, BadOption, ClientClosed, ClientError, RegistryGone
from smartclient.explain import Explanation, looking_on, unused
from smartclient.hedge import HedgeRule
from smartclient.inference import Classification, Classified, Image
from smartclient.many import in_parallel
from smartclient.metadata import InputNames
from smartclient.options import RequestOptions, request_of
from smartclient.policies.select import DEFAULT, named
from smartclient.policy import ANY, PickInfo, Policy
from smartclient.reporter import Dashboard, Reporter
from smartclient.response import Response, StreamedResponse
from smartclient.retry import RetryRule
from smartclient.tensors import Tensors
from smartclient.tracing import makers
from smartclient.transport import Request, Transport

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Parts(msgspec.Struct, frozen=True):
    """The live objects of one client, for whoever shows them (``smartclient.metrics``): to be read, from any thread."""

    clock: Clock
    cache: DiscoveryCache
    balancer: Balancer
    sender: Sender
    caller: Caller


class AsyncSmartClient:
    """A client of one service.

    ``registry``: an address (``consul://host:port``, ``static://host:port,host:port``) or a ``Directory``; None takes
    TWOSTEP_REGISTRY, then Consul's own variables, then the agent on this machine. ``policy``: how the next node is
    chosen, by name (docs/policies.md) or as a ``Policy``. ``timeout``: seconds for a whole call, retries included.
    ``attempts``: the most nodes one call tries. ``hedge``: ask a second node when the first is slow for once; True
    takes ``HedgeRule``'s numbers. ``throttle``: end most calls at once while nodes refuse nearly everything.
    ``ejection``, ``slow_start``: when a failing node is left out, and how a new one begins. ``tracing``: make
    OpenTelemetry spans and send nodes their context; None does where the program has set a tracer provider before it
    makes the client. ``cache_dir``: a folder that keeps the last good list, for a start while the registry is away;
    None takes TWOSTEP_CACHE_DIR. ``tls``: whom to trust, and what certificate to show, at nodes that speak https; None
    takes TWOSTEP_CACERT, TWOSTEP_CLIENT_CERT and TWOSTEP_CLIENT_KEY. ``token``: the bearer token that nodes demand, a
    text, or the path (a ``Path``) of a file that is read again at every attempt; None takes TWOSTEP_NODE_TOKEN_FILE,
    then TWOSTEP_NODE_TOKEN, and an empty text is none. ``reporter``: the address of a dashboard that is told every few
    seconds what this client does, ``reporter_name`` what it is called there (unique in the fleet); None takes
    TWOSTEP_DASHBOARD and TWOSTEP_CLIENT_NAME, and an empty address is none. Raises ``BadOption``.
    """

    def __init__(
        self,
        service: str,
        registry: str | Directory | None = None,
        *,
        policy: str | Policy = DEFAULT,
        timeout: float = 30.0,
        attempts: int = 3,
        hedge: HedgeRule | bool = False,
        throttle: bool = True,
        ejection: EjectionRule | None = None,
        slow_start: SlowStart | None = None,
        tracing: bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        token: str | os.PathLike[str] | None = None,
        reporter: str | None = None,
        reporter_name: str | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if timeout <= 0 or attempts < 1:
            raise BadOption(f"timeout={timeout} and attempts={attempts}: both must be above 0")
        if tls is not None and transport is not None:
            raise BadOption("tls is for the client's own transport; give it to the transport you hand in")
        dashboard = Dashboard.of(reporter, reporter_name, os.environ)
        clock, rng = clock or SystemClock(), rng or random.Random()
        self.service = service
        self._timeout = timeout
        self._clock = clock
        self._closed = False
        self._input_names = InputNames(service)
        self._own_directory = registry is None or isinstance(registry, str)
        self._own_transport = transport is None
        self._directory = _directory(registry, cache_dir, clock, rng)
        self._transport = transport or AiohttpTransport(connect_within=CONNECT_TIMEOUT, tls=tls)
        self._balancer = Balancer(
            named(policy) if isinstance(policy, str) else policy,
            service=service,
            source=self._directory.source,
            clock=clock,
            rng=rng,
            ejection=ejection,
            slow_start=slow_start,
        )
        self._cache = DiscoveryCache(self._directory, service, self._balancer.update, clock=clock, rng=rng)
        limits = Limits(
            retry=RetryRule(attempts=attempts),
            hedge=hedge if isinstance(hedge, HedgeRule) else HedgeRule() if hedge else None,
            throttle=throttle,
        )
        sender, caller = makers(tracing)
        bearer = Bearer.of(token, os.environ)
        self._sender = sender(self._balancer, self._transport, clock=clock, bearer=bearer)
        self._caller = caller(self._balancer, self._sender, service=service, clock=clock, rng=rng, limits=limits)
        self._reporter: Reporter | None = None
        if dashboard is not None:
            self._reporter = Reporter(dashboard, self._balancer, self._caller, service=service, clock=clock, rng=rng)

    async def ready(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the whole call's deadline
        """Look the service up now instead of at the first call.

        Raises ``RegistryGone``, ``RegistryRefused``, or ``NoEndpoints`` when nobody could take a request.
        """
        await self._listed(timeout or self._timeout)
        self._balancer.ensure_any()

    async def classify(
        self,
        image: Image,
        *,
        top: int = 5,
        model: str = "",
        version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - the whole call's deadline
    ) -> Classification:
        """Classify one image: a path, encoded bytes, or an open binary file.

        ``model``, ``version``: of a node that serves several; its first model, and the newest version, when empty.
        Retried on other nodes when one fails, for asking twice does no harm, and when one lacks the model asked for.
        Raises ``BadInput`` when the image is at fault, or no node asked has the model (status 404), ``AccessDenied``,
        else what ``request`` raises, ``CallFailed`` also for a refusal by the last node asked.
        """
        body = image if isinstance(image, bytes) else await inference.read(image)
        request = inference.encode(body, top, model, version)
        named = bool(model or version)
        return inference.decode(await self._call(request, timeout, idempotent=True, elsewhere=named), self.service)

    async def classify_many(
        self,
        images: Iterable[Image] | AsyncIterable[Image],
        *,
        top: int = 5,
        model: str = "",
        version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - each call's deadline
        concurrency: int = 16,
    ) -> AsyncGenerator[Classified, None]:
        """Classify any number of images, ``concurrency`` at a time, yielding each as it is done.

        ``images`` is read as needed, so memory stays bounded. A failed image carries its error; the others go on.
        """

        async def one(image: Image) -> Classified:
            try:
                result = await self.classify(image, top=top, model=model, version=version, timeout=timeout)
            except ClientError as error:
                return Classified(image=image, error=error)
            return Classified(image=image, result=result)

        async with aclosing(in_parallel(images, one, concurrency)) as results:
            async for each in results:
                yield each

    async def predict(
        self,
        inputs: "ArrayLike | Mapping[str, ArrayLike]",
        *,
        model: str = "",
        version: str = "",
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        binary: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - the whole call's deadline
        key: str = "",
    ) -> Tensors:
        """Run a model on arrays by its inputs' names, or on one for its sole input, by the Open Inference Protocol.

        ``model``: the service's name when empty. A sole input's name is asked of a node, once. ``outputs``: the names
        wanted, None for all. ``binary`` False: for servers that read nothing but JSON (MLServer). ``key`` as for
        ``request``. Retried on other nodes, unless part of a sequence. Raises what ``classify`` does, ``BadInput`` also
        for what is no array.
        """
        model = model or self.service
        seconds = self._timeout if timeout is None else timeout
        if not isinstance(inputs, Mapping):
            begun = self._clock.monotonic()
            name = await self._input_names.of(
                model, version, lambda ask: self._call(ask, seconds, idempotent=True, elsewhere=True)
            )
            inputs = {name: inputs}
            seconds = max(0.001, seconds - (self._clock.monotonic() - begun))
        request = tensors.encode(
            inputs, model=model, version=version, outputs=outputs, parameters=parameters, binary=binary
        )
        resend = "sequence_id" not in (parameters or {})
        done = await self._call(request, seconds, idempotent=resend, elsewhere=True, key=key)
        try:
            return tensors.decode(done, self.service)
        except BadInput:
            self._input_names.forget(model, version)
            raise

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Send any HTTP request to one of the service's nodes and return its answer, whatever the status.

        ``params``, ``headers`` (an ``Authorization`` goes before the client's token); ``data``: bytes, text, an open
        binary file, or pieces; ``json`` instead: a value to encode. ``timeout``: seconds for the whole call. ``key``:
        what it is about (a user, a session), for policies that send the same key to the same node. Once sent, it is
        sent again (to another node) only when ``idempotent``; None takes that from the method: GET, HEAD, PUT, DELETE
        and OPTIONS are. Redirects are returned, not followed. Raises ``NoEndpoints``, ``CallFailed`` with every attempt
        when no node answered, ``DeadlineExceeded``, ``Throttled``, and on first use ``RegistryGone`` or
        ``RegistryRefused``.
        """
        request = request_of(method, path, options)
        done = await self._call(
            request, options.get("timeout"), idempotent=options.get("idempotent"), key=options.get("key", "")
        )
        return Response.of(done)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[StreamedResponse, None]:
        """Send a request as ``request`` does and leave the answer's body to be read in pieces, however long it is.

        ``async with client.stream("GET", "/log") as reply: async for piece in reply: ...``. ``timeout`` is for the head
        of the answer, and again for each piece. The node counts as busy with it until the block ends.
        """
        request = request_of(method, path, options)
        done = await self._call(
            request,
            options.get("timeout"),
            idempotent=options.get("idempotent"),
            key=options.get("key", ""),
            stream=True,
        )
        reply = StreamedResponse.of(done)
        try:
            yield reply
        finally:
            await reply.close()

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """GET ``path``; options as for ``request``."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """POST to ``path``; options as for ``request``. Sent again after a lost connection only when ``idempotent``."""
        return await self.request("POST", path, **options)

    def explain(self, key: str = "") -> dict[str, Any]:
        """Return which nodes stand to choose for the next call (about ``key``), with what scores, and why not others.

        Consumes no turn. The lists are empty before the first call or ``ready()``.
        """
        info = PickInfo(key=key) if key else ANY
        listed = self._cache.current.instances if self._cache.current else ()
        return {
            "policy": self._balancer.policy.name,
            "endpoints": self._balancer.explain(info),
            "unused": unused(listed, self._balancer.endpoints),
        }

    @contextmanager
    def choices(self) -> Iterator[list[Explanation]]:
        """Note, while the block lasts, every choice of a node: who stood to choose, who was chosen and why.

        ``with client.choices() as made: await client.get("/")``. Costs a look at every node for each attempt.
        """
        made: list[Explanation] = []
        before = self._sender.pick
        self._sender.pick = looking_on(self._balancer, made.append)
        try:
            yield made
        finally:
            self._sender.pick = before

    @property
    def parts(self) -> Parts:
        """What this client is made of."""
        return Parts(self._clock, self._cache, self._balancer, self._sender, self._caller)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def snapshot(self) -> dict[str, Any]:
        """Return the observable state: list and its age, endpoints, calls and retries, connections, reports."""
        return {
            "service": self.service,
            "closed": self._closed,
            "discovery": self._cache.snapshot(),
            "balancer": self._balancer.snapshot(),
            "calls": self._caller.snapshot(),
            "transport": self._transport.snapshot(),
            "reporter": None if self._reporter is None else self._reporter.snapshot(),
        }

    async def close(self) -> None:
        """End the watch and close connections; calls under way fail. Closing twice is fine.

        A dashboard is sent a last report, which takes half a second at most.
        """
        if self._closed:
            return
        self._closed = True
        await self._cache.close()
        await self._caller.close()
        if self._own_transport:
            await self._transport.close()
        if self._own_directory:
            await self._directory.close()
        if self._reporter is not None:
            await self._reporter.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _call(
        self,
        request: Request,
        within: float | None,
        *,
        idempotent: bool | None,
        elsewhere: bool = False,
        key: str = "",
        stream: bool = False,
    ) -> Done:
        seconds = self._timeout if within is None else within
        if seconds <= 0:
            raise BadOption(f"timeout={seconds}: it must be above 0")
        if self._cache.current is None or self._closed:
            begun = self._clock.monotonic()
            await self._listed(seconds)
            seconds = max(0.001, seconds - (self._clock.monotonic() - begun))
        if self._reporter is not None:
            self._reporter.start()
        return await self._caller.call(
            request, within=seconds, idempotent=idempotent, elsewhere=elsewhere, key=key, stream=stream
        )

    async def _listed(self, seconds: float) -> None:
        if self._closed:
            raise ClientClosed(f"this client of {self.service!r} is closed; make another one")
        try:
            async with asyncio.timeout(seconds):
                await self._cache.load()
        except TimeoutError as error:
            said = f"{self._directory.source} said nothing within {seconds:g} s"
            raise RegistryGone(f"cannot look {self.service!r} up: {said}") from error


def _directory(
    registry: str | Directory | None, cache_dir: str | os.PathLike[str] | None, clock: Clock, rng: random.Random
) -> Directory:
    if registry is not None and not isinstance(registry, str):
        if cache_dir is not None:
            raise BadOption("cache_dir goes with a registry's address; a Directory is used as it is")
        return registry
    try:
        return connect(registry, clock=clock, rng=rng, cache=cache_dir)
    except RegistryError as error:
        raise BadOption(str(error)) from error
