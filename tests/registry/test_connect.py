import pytest

from registry import connect
from registry.consul.settings import consul_settings
from registry.errors import ConfigurationError

VARIABLES = ["TWOSTEP_REGISTRY"] + [
    f"CONSUL_{name}"
    for name in (
        "HTTP_ADDR", "HTTP_TOKEN", "HTTP_TOKEN_FILE", "HTTP_SSL", "HTTP_SSL_VERIFY",
        "CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME", "NAMESPACE",
    )
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("consul://10.0.0.5:8501", "consul://10.0.0.5:8501"),
        ("consul://consul.example", "consul://consul.example:8500"),
        ("10.0.0.5:8501", "consul://10.0.0.5:8501"),
        ("localhost", "consul://localhost:8500"),
        ("http://10.0.0.5:8500/", "consul://10.0.0.5:8500"),
        ("https://consul.example:8501", "https://consul.example:8501"),
        ("consul://[::1]:8500", "consul://[::1]:8500"),
        ("h:1?dc=dc2", "consul://h:1?dc=dc2"),
        ("https://h?namespace=a%20b&cached&dc=dc2", "https://h:8500?dc=dc2&namespace=a%20b"),
        ("static://10.0.0.1:9001, [::1]:9002", "static://10.0.0.1:9001,[::1]:9002"),
        (None, "consul://127.0.0.1:8500"),
    ],
)
def test_an_address_leads_to_its_directory_without_a_running_loop(address, source):
    assert connect(address).source == source


@pytest.mark.parametrize(
    "address",
    ["foo://x", "unix:///run/consul.sock", "consul://", "consul://h:port", "consul://h:0", "consul://h:99999",
     "consul://h:1/path", "consul://h:1#x", "consul://h:1,h:2", "consul://a b:1", "://h:1",
     "a..b:1", f"consul://{'a' * 64}:1", f"static://{'a' * 64}:1",
     "static://", "static://h", "static://h:1,", "consul://[::1", " "],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_with_an_example(address):
    with pytest.raises(ConfigurationError, match=r"consul://127\.0\.0\.1:8500"):
        connect(address)


@pytest.mark.parametrize("address", ["consul://hush@h:8500", "consul://u:hush@h:8500", "hush@h:8500"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(address):
    with pytest.raises(ConfigurationError, match="CONSUL_HTTP_TOKEN") as caught:
        connect(address)
    assert "hush" not in str(caught.value)


def test_given_goes_before_ours_goes_before_consuls(monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://c:1")
    assert connect().source == "consul://c:1"
    monkeypatch.setenv("TWOSTEP_REGISTRY", "static://t:2")
    assert connect().source == "static://t:2"
    assert connect("g:3").source == "consul://g:3"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("x=1", "has no option 'x'; it has dc, namespace, cached"),
        ("token=hush", "has no option 'token'"),
        ("dc", "gives dc no name"),
        ("namespace=", "gives namespace no name"),
        ("dc=a&dc=b", "gives an option twice"),
        ("cached=perhaps", "cached=perhaps is neither true nor false"),
    ],
)
def test_an_option_that_is_none_is_refused_in_words(options, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        connect(f"consul://h:8500?{options}")
    assert "hush" not in str(caught.value)


def test_options_of_an_address_say_what_to_ask_for():
    settings = consul_settings("h?dc=dc2&namespace=team&cached", {"CONSUL_NAMESPACE": "other"})
    assert (settings.dc, settings.namespace, settings.cached) == ("dc2", "team", True)
    settings = consul_settings("h?cached=false", {"CONSUL_NAMESPACE": "other"})
    assert (settings.dc, settings.namespace, settings.cached) == ("", "other", False)


def test_consuls_variables_mean_what_they_mean_to_consul(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    environment = {
        "CONSUL_HTTP_TOKEN": "from-variable",
        "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token"),
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_CACERT": "/ca.pem",
        "CONSUL_CAPATH": "/cas",
        "CONSUL_CLIENT_CERT": "/c.pem",
        "CONSUL_CLIENT_KEY": "/k.pem",
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
    }
    settings = consul_settings("h:8501", environment)
    assert (settings.scheme, settings.token.read(), settings.verify) == ("https", "from-file", True)
    assert (settings.cacert, settings.capath, settings.cert, settings.key) == ("/ca.pem", "/cas", "/c.pem", "/k.pem")
    assert settings.server_name == "server.dc1.consul"
    assert "from-file" not in repr(settings)
    assert consul_settings("h", environment | {"CONSUL_HTTP_SSL_VERIFY": "0"}).verify is False
    assert consul_settings("h", {"CONSUL_HTTP_TOKEN": "t"}).token.read() == "t"
    assert consul_settings("https://h", {"CONSUL_HTTP_SSL": "false"}).scheme == "https"


def test_a_key_without_its_certificate_is_refused():
    with pytest.raises(ConfigurationError, match="CONSUL_CLIENT_CERT"):
        consul_settings("h", {"CONSUL_CLIENT_KEY": "/k.pem"})


def test_a_server_name_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match=r"CONSUL_TLS_SERVER_NAME=\.x is no host name"):
        consul_settings("https://h", {"CONSUL_TLS_SERVER_NAME": ".x"})


def test_a_flag_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ConfigurationError, match="CONSUL_HTTP_SSL=maybe"):
        consul_settings("h", {"CONSUL_HTTP_SSL": "maybe"})


@pytest.mark.parametrize("name", ["HTTP_TOKEN_FILE", "HTTP_TOKEN"])
def test_a_token_that_cannot_be_one_is_refused_by_the_name_of_its_variable(tmp_path, name):
    (tmp_path / "token").write_text("hush hush")
    text = str(tmp_path / "token") if name == "HTTP_TOKEN_FILE" else "hush hush"
    with pytest.raises(ConfigurationError, match=f"CONSUL_{name}: .*no spaces") as caught:
        consul_settings("h", {f"CONSUL_{name}": text})
    assert "hush" not in str(caught.value)


def test_a_token_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="CONSUL_HTTP_TOKEN_FILE"):
        consul_settings("h", {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "none")})
