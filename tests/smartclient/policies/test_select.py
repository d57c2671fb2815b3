import random

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.policies.probed import Probed
from smartclient.policies.select import DEFAULT, named, names
from smartclient.policy import AskingPicker, PickInfo


def test_every_policy_is_found_by_its_name_and_each_client_gets_its_own() -> None:
    complete = {"zone": "zone?zone=a", "split": "split?stable=1"}
    for name in names():
        policy = named(complete.get(name, name))
        assert policy.name == name
        assert named(complete.get(name, name)) is not policy


def test_the_default_asks() -> None:
    assert isinstance(named(DEFAULT), Probed)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BadOption, match=r"no policy is called 'fastest'; choose one of: hash, least_request, .*zone$"):
        named("fastest")


@pytest.mark.parametrize(
    "described",
    [
        "hash?factor=1.5",
        "p2c",
        "prequal?quantile=0.6&ask=0",
        "probed?ask=2&margin=0.25",
        "reported_load?penalty=0.5",
        "rotation_p2c?margin=0",
        "split?stable=95&canary=5",
        "split?stable=95&canary=5&then=hash%3Ffactor%3D2",
        "subset?size=3&client=me&then=least_request",
        "zone?zone=a&clients=0.3&then=p2c",
        "zone?zone=a&then=subset%3Fsize%3D4%26then%3Dprobed",
    ],
)
def test_options_are_given_as_in_an_address(described: str) -> None:
    everybody = [Endpoint(instance(n, zone="a", version="stable"), EjectionRule()) for n in range(9)]
    assert named(described).build(everybody, random.Random(1)).pick(PickInfo(key="a"), 0.0) in everybody


def test_an_option_changes_what_is_done() -> None:
    everybody = [Endpoint(instance(n, meta={"load": "/load"}), EjectionRule()) for n in range(9)]
    picker = named("subset?size=4&client=me&then=probed%3Fask%3D3").build(everybody, random.Random(1))
    assert isinstance(picker, AskingPicker)
    assert len(picker.candidates(PickInfo(), 0.0)) == 3


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ("hash?factr=2", "the policy 'hash' has no option 'factr'; it has: factor"),
        ("p2c?margin=1", "the policy 'p2c' has no option 'margin'; it has none"),
        ("p2c?then=rotation", "the policy 'p2c' has no option 'then'; it has none"),
        ("zone?zone=a&els=p2c", "the policy 'zone' has no option 'els'; it has: zone, clients, then"),
        ("zone?zone=a&then=fastest", "no policy is called 'fastest'; choose one of:"),
        ("zone", "must be told the zone"),
        ("split", "must be told the share of each version"),
        ("hash?factor=much", "the policy 'hash' cannot use factor=much: give a number"),
        ("hash?factor=nan", "the policy 'hash' cannot use factor=nan: give a number"),
        ("probed?ask=2.5", "the policy 'probed' cannot use ask=2.5: give a whole number"),
        ("split?stable=most", "the policy 'split' cannot use stable=most: give a number"),
        ("hash?factor=2&factor=3", "the policy 'hash' is told 'factor' twice"),
        ("hash?factor=0.5", "factor=0.5: must be above 1"),
    ],
)
def test_a_mistake_is_answered_with_what_there_is(described: str, says: str) -> None:
    with pytest.raises(BadOption, match=says.replace("?", r"\?").replace(".", r"\.")):
        named(described)
