import pytest

from smartclient.errors import BadOption
from smartclient.policies.rotation import Rotation
from smartclient.policies.select import named


def test_rotation_is_found_by_name_and_each_client_gets_its_own() -> None:
    assert isinstance(named("rotation"), Rotation)
    assert named("rotation") is not named("rotation")


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BadOption, match=r"no policy is called 'fastest'; choose one of: hash, .*zone"):
        named("fastest")
