import asyncio

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, Lease, key_of
from smartclient.stats import Outcome


class Book:
    def __init__(self) -> None:
        self.settled: list[tuple[Outcome, float | None]] = []
        self.endpoint = Endpoint(instance(1), EjectionRule())

    def lease(self) -> Lease:
        return Lease(self.endpoint, 0.0, self.settle)

    def settle(self, lease: Lease, outcome: Outcome, retry_after: float | None, took: float | None) -> None:
        self.settled.append((outcome, retry_after))


@pytest.fixture
def book() -> Book:
    return Book()


def test_in_flight_goes_up_at_once_and_down_once(book: Book) -> None:
    lease = book.lease()
    assert book.endpoint.in_flight == 1
    lease.release(Outcome.OK)
    lease.release(Outcome.RESET)
    assert book.endpoint.in_flight == 0
    assert book.settled == [(Outcome.OK, None)]


def test_leaving_the_block_without_a_word_releases_as_cancelled(book: Book) -> None:
    with book.lease():
        pass
    with pytest.raises(ZeroDivisionError), book.lease():
        raise ZeroDivisionError
    assert book.settled == [(Outcome.CANCELLED, None)] * 2
    assert book.endpoint.in_flight == 0


def test_leaving_the_block_after_a_release_changes_nothing(book: Book) -> None:
    with book.lease() as lease:
        lease.release(Outcome.OVERLOADED, 2.0)
    assert book.settled == [(Outcome.OVERLOADED, 2.0)]


async def test_a_cancelled_task_gives_its_lease_back(book: Book) -> None:
    async def hold() -> None:
        with book.lease():
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert book.endpoint.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert book.endpoint.in_flight == 0
    assert book.settled == [(Outcome.CANCELLED, None)]


def test_counters_tell_faults_from_overload_and_from_nothing(book: Book) -> None:
    for outcome in Outcome:
        book.lease().release(outcome)
    endpoint = book.endpoint
    assert (endpoint.picked, endpoint.ok, endpoint.failed, endpoint.overloaded) == (8, 1, 4, 1)


def test_the_same_id_at_another_address_is_another_endpoint() -> None:
    assert key_of(instance(1)) == key_of(instance(1, weight=5))
    assert key_of(instance(1)) != key_of(instance(1, address="10.0.0.1"))
    assert key_of(instance(1)) != key_of(instance(1, port=1))


def test_a_snapshot_shows_what_is_observable(book: Book) -> None:
    book.lease()
    shown = book.endpoint.snapshot(0.0)
    assert shown["id"] == "digits-1"
    assert shown["endpoint"] == "127.0.0.1:9001"
    assert shown["state"] == "closed"
    assert shown["in_flight"] == shown["picked"] == 1
    assert "digits-1" in repr(book.endpoint)
