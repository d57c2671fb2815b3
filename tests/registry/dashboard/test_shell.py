"""What stands round every page: where one is, who looks, and how old the data are."""

import msgspec
import pytest

from registry.dashboard.access import Session
from registry.dashboard.shell import OLD, parts, shell, twin
from tests.registry.dashboard.drawing import RENDERER, words
from tests.registry.dashboard.fleet import NOW, fleet, world

ADA = Session(name="ada", csrf="secret", cookie="cookie", begun=0.0)


def around(seen=None, **changes):
    said = {"name": "calls", "here": "/calls", "version": "v.1", "theme": "dark", "session": None, "live": True}
    return shell(seen or world(), **{**said, **changes})


def age(live, heard_at):
    seen = fleet(live=live)
    registry = msgspec.structs.replace(seen.registry, heard_at=heard_at, error="" if live else "refused")
    found = parts(world(seen=msgspec.structs.replace(seen, registry=registry)))
    return {name: RENDERER.part(part) for name, part in found.items()}


@pytest.mark.parametrize(
    ("live", "heard_at", "said", "old"),
    [
        (True, NOW - 1, "live, 1 s old", False),
        (True, NOW - OLD - 1, "11 s old", True),  # it counts as live, and yet nothing has come
        (False, NOW - 5, "live, 5 s old", False),
        (False, NOW - OLD - 1, "11 s old", True),
        (False, None, "no data yet", True),
    ],
)
def test_data_are_old_by_their_age(live: bool, heard_at: float | None, said: str, old: bool) -> None:
    fresh = age(live, heard_at)["fresh"]
    assert said in words(fresh)
    assert ('class="fresh old"' in fresh) is old


def test_a_registry_that_is_away_is_told_at_once_with_what_still_works() -> None:
    assert words(age(True, NOW)["notice"]) == ""
    lost, never = words(age(False, NOW - 1)["notice"]), words(age(False, None)["notice"])
    assert lost.startswith("The registry does not answer. consul://127.0.0.1:8500: refused. What you see is the last")
    assert never.startswith("The registry has not answered yet. consul://127.0.0.1:8500: refused. Pages fill")


def test_the_keys_hold_what_is_seen_and_not_the_time_of_day() -> None:
    seen = world(seen=fleet())
    later = msgspec.structs.replace(seen.fleet.registry, heard_at=NOW + 2)
    again = world(seen=msgspec.structs.replace(seen.fleet, registry=later))
    assert {each.key for each in parts(seen).values()} == {each.key for each in parts(again).values()}


def test_it_says_where_one_is() -> None:
    found = around()
    assert [(each.name, each.here) for each in found.navigation if each.here] == [("Calls", True)]
    assert (found.here, found.twin, found.stream) == ("/calls", "/api/v1/calls", "/stream?at=%2Fcalls")
    assert twin("/") == "/api/v1/overview"
    assert around(live=False).stream == ""


def test_a_long_address_is_whole_wherever_it_stands() -> None:
    here = "/confirm?id=" + "x&<" * 400
    found = around(here=here)
    assert found.here.unescape() == here
    assert found.twin.unescape() == f"/api/v1{here}"
    assert len(found.stream) > len(here)


def test_only_who_has_signed_in_is_named() -> None:
    assert (around().operator, around().csrf) == ("", "")
    found = around(session=ADA)
    assert (found.operator, found.csrf) == ("ada", "secret")
    assert around(world(can_act=False)).may_sign_in is False


def test_a_theme_that_is_none_is_auto() -> None:
    assert around(theme="dark").theme == "dark"
    assert around(theme='"><script>').theme == "auto"
