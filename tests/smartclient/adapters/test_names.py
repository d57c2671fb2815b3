"""Which hosts mean a service, by the rules of Consul's DNS."""

import pytest

from smartclient.adapters.names import Name, UnusableName, service_at, service_of


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("digits.service.consul", Name("digits")),
        ("Digits.Service.Consul.", Name("digits")),
        ("digits.service.dc2.consul", Name("digits", "dc2")),
        ("digits.service.dc2.dc.consul", Name("digits", "dc2")),
        ("service.service.consul", Name("service")),
        ("my-model.service.consul", Name("my-model")),
    ],
)
def test_a_service_and_its_datacenter(host: str, name: Name) -> None:
    assert service_of(host) == name


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "10.0.0.1",
        "",
        "consul",
        "digits.service",
        "web-1.node.consul",
        "digits.query.consul",
        "digits.service.consul.example.com",
        "service.example.com",
    ],
)
def test_other_hosts_are_somebody_elses(host: str) -> None:
    assert service_of(host) is None
    assert service_at("https", host) is None


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("v2.digits.service.consul", "the tag 'v2'.*write digits.service.consul"),
        ("v1.2.digits.service.dc2.consul", "the tag 'v1.2'"),
        ("digits.service.team.ns.dc2.dc.consul", "write digits.service.DATACENTER.consul.*namespace=NAME"),
        ("service.consul", "names no service"),
        (".service.consul", "names no service"),
    ],
)
def test_what_the_balancer_cannot_do_is_refused_with_the_way_out(host: str, said: str) -> None:
    with pytest.raises(UnusableName, match=said):
        service_of(host)


def test_tls_is_not_quietly_left_out() -> None:
    assert service_at("HTTP", "digits.service.consul") == Name("digits")
    with pytest.raises(UnusableName, match=r"scheme=https.*write http://digits\.service\.consul"):
        service_at("https", "digits.service.consul")
