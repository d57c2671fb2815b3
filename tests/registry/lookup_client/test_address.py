import random

import pytest

from registry import connect
from registry.errors import ConfigurationError
from registry.lookup.client.address import lookup_settings
from tests.registry.lookup_client.fake import TOKEN


def settings(address, **environment):
    return lookup_settings(address, environment, random.Random(1))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("lookup://10.0.0.1:8701", "lookup://10.0.0.1:8701"),
        ("lookup://lookup.example", "lookup://lookup.example:8700"),
        ("lookup://a, b:1,a:8700/", "lookup://a:8700,b:1"),
        ("lookup://[::1]:1", "lookup://[::1]:1"),
        ("lookup://a?limit=20", "lookup://a:8700?limit=20"),
        ("lookup://a?client=me&limit=20", "lookup://a:8700?client=me&limit=20"),
        ("lookup+https://a", "lookup+https://a:8700"),
    ],
)
def test_an_address_leads_to_the_directory_that_shows_it(address, source):
    assert connect(address).source == source


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("lookup://", "lookup://10"),
        ("lookup://a,,b", "lookup://10"),
        ("lookup://a:0", "lookup://10"),
        ("lookup://a:port", "lookup://10"),
        ("lookup://a/path", "lookup://10"),
        ("lookup://a?limt=20", "no option 'limt'.*limit=20"),
        ("lookup://a?limit=0", "limit=0"),
        ("lookup://a?limit=many", "limit=many"),
        ("lookup://a?limit=1&limit=2", "once"),
        ("lookup://a?client=me", "goes with limit"),
        ("lookup://a?limit=3&client=", "goes with limit"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_an_example(address, said):
    with pytest.raises(ConfigurationError, match=said):
        connect(address)


@pytest.mark.parametrize("address", ["lookup://hush@h:8700", "lookup://h,u:hush@g"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(address):
    with pytest.raises(ConfigurationError, match="TWOSTEP_LOOKUP_TOKEN") as caught:
        connect(address)
    assert "hush" not in str(caught.value)


def test_a_client_of_a_subset_has_a_name_of_its_own():
    one, other = (lookup_settings("lookup://a?limit=3", {}, random.Random(seed)) for seed in (1, 2))
    assert one.client
    assert one.client != other.client
    assert settings("lookup://a?limit=3&client=me").client == "me"
    assert (settings("lookup://a").limit, settings("lookup://a").client) == (0, "")


def test_the_token_comes_from_a_file_before_a_variable_and_is_shown_nowhere(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = settings("lookup://a", TWOSTEP_LOOKUP_TOKEN="other", TWOSTEP_LOOKUP_TOKEN_FILE=str(tmp_path / "token"))
    assert found.token.read() == TOKEN
    assert TOKEN not in repr(found)
    assert settings("lookup://a", TWOSTEP_LOOKUP_TOKEN=TOKEN).token.read() == TOKEN


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_refused(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="TWOSTEP_LOOKUP_CACERT"):
        settings("lookup+https://a", TWOSTEP_LOOKUP_CACERT=str(path))
    assert settings("lookup://a", TWOSTEP_LOOKUP_CACERT=str(path)).tls is None
