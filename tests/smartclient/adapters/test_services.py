"""One client for each service, and the registry's address for another datacenter."""

import pytest

from registry.testing import ScriptedDirectory
from smartclient.adapters.names import UnusableName
from smartclient.adapters.services import Services, in_datacenter


def made(registry=None) -> tuple[Services[str], list[tuple[str, object]]]:
    asked: list[tuple[str, object]] = []

    def make(service: str, where: object) -> str:
        asked.append((service, where))
        return f"client {len(asked)} of {service}"

    return Services(make, registry), asked


def test_a_service_has_one_client_made_at_its_first_call() -> None:
    services, asked = made("consul://10.0.0.1:8500")
    assert asked == []
    assert services.at("http", "digits.service.consul") == "client 1 of digits"
    assert services.at("http", "DIGITS.service.consul.") == "client 1 of digits"
    assert services.at("http", "photos.service.consul") == "client 2 of photos"
    assert services.at("http", "example.com") is None
    assert asked == [("digits", "consul://10.0.0.1:8500"), ("photos", "consul://10.0.0.1:8500")]


def test_clients_taken_to_be_closed_are_made_anew_when_needed_again() -> None:
    services, _ = made()
    services.at("http", "digits.service.consul")
    assert services.take() == ["client 1 of digits"]
    assert services.take() == []
    assert services.at("http", "digits.service.consul") == "client 2 of digits"


def test_another_datacenter_is_another_client_with_another_address() -> None:
    services, asked = made("consul://10.0.0.1:8500?namespace=team&cached")
    services.at("http", "digits.service.consul")
    services.at("http", "digits.service.dc2.consul")
    assert [service for service, _ in asked] == ["digits", "digits"]
    assert asked[1][1] == "consul://10.0.0.1:8500?namespace=team&cached=&dc=dc2"


def test_the_datacenter_of_the_url_goes_before_that_of_the_address() -> None:
    assert in_datacenter("https://consul.example:8501?dc=dc1", "dc2") == "https://consul.example:8501?dc=dc2"


def test_without_an_address_the_environments_registry_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOSTEP_REGISTRY", "consul://10.0.0.9:8500")
    assert in_datacenter(None, "dc2") == "consul://10.0.0.9:8500?dc=dc2"


@pytest.mark.parametrize(
    "registry",
    ["static://10.0.0.1:80", "lookup://10.0.0.1:8700", "lookup+https://10.0.0.1:8700", ScriptedDirectory([])],
)
def test_a_registry_that_knows_no_datacenters_says_so(registry: object) -> None:
    with pytest.raises(UnusableName, match=r"'dc2' cannot be looked up at .*consul://HOST:PORT"):
        in_datacenter(registry, "dc2")
