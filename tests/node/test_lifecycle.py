"""The states of a node and the order in which it leaves."""

import asyncio

import pytest

from node.lifecycle import Bound, Lifecycle, State, Step, drain, drain_order
from registry.testing import ManualClock


async def test_it_moves_forward_only_and_remembers_when():
    clock = ManualClock(epoch=500.0)
    life = Lifecycle(clock, "digits-1")
    life.to(State.LOADING)
    await clock.advance(3)
    life.to(State.READY)
    assert life.ready
    life.to(State.LOADING)
    assert life.state is State.READY
    life.to(State.DRAINING)
    assert life.leaving
    assert not life.ready
    assert life.snapshot() == {
        "state": "draining",
        "entered": {"starting": 500.0, "loading": 500.0, "ready": 503.0, "draining": 503.0},
    }


async def test_each_transition_is_logged_with_its_time(caplog):
    caplog.set_level("INFO")
    clock = ManualClock()
    life = Lifecycle(clock, "digits-1")
    await clock.advance(2.5)
    life.to(State.LOADING)
    assert "digits-1: starting -> loading after 2.50 s" in caplog.text


def test_clients_hear_of_it_before_anything_is_refused():
    steps = [bound.step for bound in drain_order(grace=1.5, finish=15)]
    assert steps == [Step.UNREADY, Step.LEAVE_REGISTRY, Step.GRACE, Step.REFUSE, Step.FINISH, Step.CLOSE]


def test_draining_fits_inside_the_time_an_orchestrator_gives():
    assert sum(bound.seconds for bound in drain_order(grace=1.5, finish=15)) < 30


def recorder(log, **special):
    def action(step):
        async def take():
            log.append(step)
            if step.name in special:
                await special[step.name]()

        return take

    return {step: action(step) for step in Step}


async def test_every_step_is_taken_in_order():
    log = []
    await drain(drain_order(grace=0, finish=1), recorder(log), asyncio.Event())
    assert log == list(Step)


async def test_a_failing_step_holds_nothing_up(caplog):
    async def fail():
        raise ConnectionError("no registry")

    log = []
    await drain(drain_order(grace=0, finish=1), recorder(log, LEAVE_REGISTRY=fail), asyncio.Event())
    assert log == list(Step)
    assert "no registry" in caplog.text


async def test_a_step_that_hangs_is_left_behind(caplog):
    log = []
    order = (Bound(Step.LEAVE_REGISTRY, 0.01), Bound(Step.CLOSE, 1))
    await drain(order, recorder(log, LEAVE_REGISTRY=asyncio.Event().wait), asyncio.Event())
    assert log == [Step.LEAVE_REGISTRY, Step.CLOSE]
    assert "gave up" in caplog.text


@pytest.mark.parametrize("early", [True, False])
async def test_a_hurry_leaves_out_the_waiting_but_not_the_goodbyes(early):
    hurry = asyncio.Event()
    log = []

    async def hang():
        hurry.set()
        await asyncio.Event().wait()

    if early:
        hurry.set()
    await drain(drain_order(grace=9, finish=9), recorder(log, GRACE=hang, FINISH=hang), hurry)
    kept = [Step.UNREADY, Step.LEAVE_REGISTRY, Step.REFUSE, Step.CLOSE]
    assert log == kept if early else [*kept[:2], Step.GRACE, *kept[2:]]
