import pytest

from registry import Registration
from registry.errors import ConfigurationError, Unsupported
from registry.static import StaticDirectory
from registry.testing import ManualClock


@pytest.fixture
def directory():
    return StaticDirectory([("10.0.0.2", 9001), ("10.0.0.1", 9001), ("10.0.0.2", 9001)], clock=ManualClock())


async def test_the_list_is_served_for_any_service_each_address_once(directory):
    for service in ("digits", "anything"):
        snapshot = await directory.lookup(service)
        assert [each.id for each in snapshot.instances] == ["10.0.0.1:9001", "10.0.0.2:9001"]
        assert {each.service for each in snapshot.instances} == {service}


async def test_a_filter_it_knows_nothing_of_finds_nothing(directory):
    assert (await directory.lookup("digits", zone="a")).instances == ()


async def test_a_service_without_a_name_is_refused(directory):
    with pytest.raises(ConfigurationError):
        await directory.lookup("")


async def test_writing_is_unsupported_and_says_what_to_use(directory):
    me = Registration(service="digits", id="d1", address="10.0.0.3", port=9001)
    calls = [
        directory.register(me),
        directory.registered(me),
        directory.beat("d1"),
        directory.maintenance("d1", True),
        directory.deregister("d1"),
    ]
    for call in calls:
        with pytest.raises(Unsupported, match="use a registry"):
            await call
