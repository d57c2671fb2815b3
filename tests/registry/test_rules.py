import pytest

from registry.directory import HttpCheck, Registration, TcpCheck, TtlCheck
from registry.errors import ConfigurationError, RegistrationRefused
from registry.rules import ensure_name, ensure_registrable

GOOD = {"service": "digits", "id": "d1", "address": "10.0.0.1", "port": 9001}


def test_a_plain_registration_is_fine():
    ensure_registrable(Registration(**GOOD, meta={"k": "v" * 512}, zone="a", version="1", check=TtlCheck()))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"service": ""}, "service name"),
        ({"service": "a b"}, "service name"),
        ({"id": "a/b"}, "id"),
        ({"id": ".."}, "id"),
        ({"address": ""}, "address"),
        ({"address": "0.0.0.0"}, "clients cannot reach"),
        ({"address": "::"}, "clients cannot reach"),
        ({"port": 0}, "port 0"),
        ({"port": 65536}, "port 65536"),
        ({"weight": 0}, "weight"),
        ({"warning_weight": -1}, "warning_weight"),
        ({"deregister_after": 59}, "least is 60"),
        ({"meta": {"a b": "x"}}, "'a b'"),
        ({"meta": {"": "x"}}, "metadata key"),
        ({"meta": {"k" * 129: "x"}}, "128"),
        ({"meta": {"consul-k": "x"}}, "prefix consul-"),
        ({"meta": {"k": "v" * 513}}, "513"),
        ({"meta": {"k": "é" * 257}}, "514 bytes"),
        ({"meta": {f"k{n}": "" for n in range(64)}, "zone": "a"}, "65 pairs"),
        ({"zone": "a", "meta": {"zone": "b"}}, "give it once"),
        ({"zone": "z" * 513}, "'zone'"),
        ({"check": HttpCheck(url="ftp://h/")}, "http://"),
        ({"check": HttpCheck(url="http://h/", interval=0)}, "interval"),
        ({"check": TcpCheck(address="h")}, "host:port"),
        ({"check": TtlCheck(ttl=0)}, "ttl"),
    ],
)
def test_what_consul_would_refuse_is_refused_with_a_word_on_what_to_change(wrong, word):
    with pytest.raises(RegistrationRefused, match=word):
        ensure_registrable(Registration(**(GOOD | wrong)))


@pytest.mark.parametrize("name", ["", "a/b", "..", "."])
def test_a_name_no_registry_could_hold_is_refused(name):
    with pytest.raises(ConfigurationError, match="service name"):
        ensure_name(name)
