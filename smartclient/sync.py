"""``SmartClient``: the same client, blocking, for programs without an event loop.

An ``AsyncSmartClient`` runs in a background thread of its own; every method hands its coroutine over and waits, so
any number of threads may share one client, and the watch goes on between calls. The thread is a daemon and starts
with the first call; it ends with ``close()``, with the client's garbage collection, or with the interpreter. After a
fork the child begins afresh: the parent's thread does not exist there, and its connections are not the child's to use.
"""

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from registry.directory import Directory
from smartclient.client import AsyncSmartClient, Parts
from smartclient.errors import ClientClosed
from smartclient.inference import Classification, Classified, Image
from smartclient.many import from_blocking
from smartclient.options import ClientOptions, PredictOptions, RequestOptions
from smartclient.response import Response, StreamedResponse
from smartclient.tensors import Tensors
from smartclient.transport import File

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Result = TypeVar("Result")


class _Background:
    """An ``AsyncSmartClient`` and the thread whose event loop it lives in. Knows nothing of its ``SmartClient``."""

    def __init__(self, service: str, make: Callable[[], AsyncSmartClient]) -> None:
        self._service = service
        self._make = make
        self._client = make()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # the garbage collector may call ``discard`` in a thread that holds it
        self._closed = False
        _running.add(self)

    def run(self, work: Callable[[AsyncSmartClient], Awaitable[Result]]) -> Result:
        """Run ``work(client)`` in the loop and wait for it; an interrupt of the waiting thread cancels it."""
        with self._lock:
            if self._closed:
                raise ClientClosed(f"this client of {self._service!r} is closed; make another one")
            future = asyncio.run_coroutine_threadsafe(self._do(work), self._loop or self._start())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientClosed(f"this client of {self._service!r} was closed during the call") from None
        except BaseException:
            future.cancel()
            raise

    def discard(self, results: AsyncGenerator[Any, None]) -> None:
        """End a generator of the loop's without waiting: this may be that loop's thread, collecting garbage."""
        with self._lock:
            if self._loop is not None:
                asyncio.run_coroutine_threadsafe(results.aclose(), self._loop)

    def leave(self, stack: AsyncExitStack) -> None:
        """Close ``stack`` in the loop and wait; not in the loop's own thread, which may be collecting garbage."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if loop is None:  # closed meanwhile, and all it held with it
                return
            ended = asyncio.run_coroutine_threadsafe(stack.aclose(), loop)
        if threading.current_thread() is not thread:
            with suppress(concurrent.futures.CancelledError):
                ended.result()

    def close(self) -> None:
        """Close the client, end the loop and its thread; calls of other threads end with ``ClientClosed``."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._closed = True
        if loop is None or thread is None:
            return
        ended = asyncio.run_coroutine_threadsafe(self._end(), loop)
        ended.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        if threading.current_thread() is not thread:  # the garbage collector may run this there: no waiting for oneself
            thread.join()
            ended.result()

    def forget(self) -> None:
        """Begin afresh in a forked child, leaving all that is the parent's alone."""
        _inherited.append((self._client, self._loop))
        self._client = self._make()
        self._loop = None
        self._thread = None
        self._lock = threading.RLock()

    @property
    def parts(self) -> Parts:
        """Those of the client that lives in this process now."""
        return self._client.parts

    async def _do(self, work: Callable[[AsyncSmartClient], Awaitable[Result]]) -> Result:
        return await work(self._client)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()

        def serve() -> None:
            loop.run_forever()
            loop.close()

        self._loop = loop
        self._thread = threading.Thread(target=serve, name=f"smartclient {self._service}", daemon=True)
        self._thread.start()
        return loop

    async def _end(self) -> None:
        await self._client.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        loop = asyncio.get_running_loop()
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()


_running: weakref.WeakSet[_Background] = weakref.WeakSet()
_inherited: list[Any] = []  # a forked child keeps what it inherited: closing it would disturb the parent


def _forget_all() -> None:
    for background in list(_running):
        background.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


class BlockingStream:
    """An answer whose body is still to be read, without an event loop: ``StreamedResponse``, blocking."""

    def __init__(self, reply: StreamedResponse, background: _Background) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.node = reply.node
        self.attempts = reply.attempts
        self.milliseconds = reply.milliseconds
        self.ok = reply.ok
        self._reply = reply
        self._background = background

    def __iter__(self) -> Iterator[bytes]:
        pieces = aiter(self._reply)
        while piece := self._background.run(lambda _: anext(pieces, b"")):
            yield piece

    def read(self) -> bytes:
        """Return the rest of the body."""
        return self._background.run(lambda _: self._reply.read())


def _unblocked(options: RequestOptions) -> RequestOptions:
    """Let pieces of a body be read in a thread of their own: whoever makes them may block."""
    data = options.get("data")
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | bytearray | memoryview | File):
        return {**options, "data": from_blocking(data)}
    return options


class SmartClient:
    """A blocking client of one service; options and errors are those of ``AsyncSmartClient``, method by method.

    Give ``registry`` as an address where the process may fork: a ``Directory`` object does not survive that.
    """

    def __init__(self, service: str, registry: str | Directory | None = None, **options: Unpack[ClientOptions]) -> None:
        self.service = service
        self._background = _Background(service, lambda: AsyncSmartClient(service, registry, **options))
        # Runs at the interpreter's end as well, while the daemon thread still does.
        self._finalizer = weakref.finalize(self, self._background.close)

    def ready(self, *, timeout: float | None = None) -> None:
        """Look the service up now instead of at the first call."""
        self._background.run(lambda client: client.ready(timeout=timeout))

    def classify(
        self, image: Image, *, top: int = 5, model: str = "", version: str = "", timeout: float | None = None
    ) -> Classification:
        """Classify one image: a path, encoded bytes, or an open binary file."""
        return self._background.run(
            lambda client: client.classify(image, top=top, model=model, version=version, timeout=timeout)
        )

    def classify_many(
        self,
        images: Iterable[Image],
        *,
        top: int = 5,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        concurrency: int = 16,
    ) -> Iterator[Classified]:
        """Classify any number of images, ``concurrency`` at a time, yielding each as it is done."""

        async def start(client: AsyncSmartClient) -> AsyncGenerator[Classified, None]:
            return client.classify_many(
                from_blocking(images),
                top=top,
                model=model,
                version=version,
                timeout=timeout,
                concurrency=concurrency,
            )

        results = self._background.run(start)
        try:
            while (each := self._background.run(lambda _: anext(results, None))) is not None:
                yield each
        finally:
            self._background.discard(results)

    def predict(self, inputs: "ArrayLike | Mapping[str, ArrayLike]", **options: Unpack[PredictOptions]) -> Tensors:
        """Run a model on arrays; options as for ``AsyncSmartClient.predict``."""
        return self._background.run(lambda client: client.predict(inputs, **options))

    def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Send any HTTP request to one of the service's nodes; options as for ``AsyncSmartClient.request``."""
        options = _unblocked(options)
        return self._background.run(lambda client: client.request(method, path, **options))

    def get(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """GET ``path``."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """POST to ``path``."""
        return self.request("POST", path, **options)

    @contextmanager
    def stream(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Iterator["BlockingStream"]:
        """Send a request and leave the answer's body to be read in pieces; see ``AsyncSmartClient.stream``.

        ``with client.stream("GET", "/log") as reply: for piece in reply: ...``
        """
        options = _unblocked(options)
        stack = AsyncExitStack()

        async def enter(client: AsyncSmartClient) -> StreamedResponse:
            return await stack.enter_async_context(client.stream(method, path, **options))

        reply = self._background.run(enter)
        try:
            yield BlockingStream(reply, self._background)
        finally:
            self._background.leave(stack)

    def explain(self, key: str = "") -> dict[str, Any]:
        """Return which nodes stand to choose for the next call, as ``AsyncSmartClient.explain`` does."""

        async def look(client: AsyncSmartClient) -> dict[str, Any]:
            return client.explain(key)

        return self._background.run(look)

    def snapshot(self) -> dict[str, Any]:
        """Return the observable state, as ``AsyncSmartClient.snapshot`` does."""

        async def look(client: AsyncSmartClient) -> dict[str, Any]:
            return client.snapshot()

        return self._background.run(look)

    @property
    def parts(self) -> Parts:
        """What this client is made of."""
        return self._background.parts

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return not self._finalizer.alive

    def close(self) -> None:
        """End the watch, close connections and end the thread. Closing twice is fine."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
