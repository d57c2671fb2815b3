from pathlib import Path

import pytest

from smartclient.errors import BadOption
from smartclient.policies.select import names
from smartclient.simulation.described import policies, read, scenarios, told
from smartclient.simulation.scenario import Away, Clients, Hung, Nodes, Scenario
from smartclient.simulation.scenarios import SCENARIOS
from smartclient.simulation.service import Lognormal, Pareto


def described(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


def test_a_file_describes_a_fleet(tmp_path: Path) -> None:
    text = """
    requests = 500
    service = { kind = "pareto", mean = 0.2 }
    clients = { count = 3, rps = 10 }
    nodes = [
      { count = 2, weight = 3 },
      { speed = 0.5, faults = [{ kind = "hung", from = 1, to = 2.5, every = 9 }, { kind = "away", from = 4, to = 5 }] },
    ]
    """
    scenario = read(described(tmp_path, text))
    assert (scenario.name, scenario.requests, scenario.rate) == ("fleet", 500, 10)
    assert scenario.service == Pareto(mean=0.2)
    assert scenario.capacity == pytest.approx(2.5 / 0.2)
    assert scenario.nodes[1].faults == (Hung(begin=1, end=2.5, every=9), Away(begin=4, end=5))


def test_what_a_file_does_not_say_is_as_everywhere(tmp_path: Path) -> None:
    scenario = read(described(tmp_path, "nodes = [{}]\nclients = { load = 0.5 }"))
    assert scenario.service == Lognormal(mean=0.05, sigma=0.5)
    assert (scenario.rate, scenario.clients.deadline, scenario.nodes[0].queue_limit) == (10.0, 30.0, 2.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes = [{]", "line 1"),
        ("nodes = []\nclients = { load = 0.5 }", "length >= 1 - at `$.nodes`"),
        ("nodes = [{}]", "missing required field `clients`"),
        ("nodes = [{ speeds = 2 }]\nclients = { load = 0.5 }", "unknown field `speeds` - at `$.nodes[0]`"),
        ("nodes = [{ speed = 0 }]\nclients = { load = 0.5 }", "> 0.0 - at `$.nodes[0].speed`"),
        ("nodes = [{}]\nclients = {}", "either a load or an rps - at `$.clients`"),
        ("nodes = [{}]\nclients = { load = 0.5, rps = 3 }", "either a load or an rps"),
        ("nodes = [{ faults = [{ kind = 'ill' }] }]\nclients = { load = 1 }", "'ill' - at `$.nodes[0].faults[0].kind`"),
        ("nodes = [{ faults = [{ kind = 'dead', from = 5, to = 4 }] }]\nclients = { load = 1 }", "from 5 to 4 never"),
        (
            "nodes = [{ faults = [{ kind = 'dead', from = 5, to = 9, every = 3 }] }]\nclients = { load = 1 }",
            "a fault of 4 s cannot happen every 3 s",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = described(tmp_path, text)
    with pytest.raises(BadOption) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"nowhere\.toml: No such file"):
        read(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadOption, match=r"binary\.toml: "):
        read(tmp_path / "binary.toml")


def test_names_and_files_and_all(tmp_path: Path) -> None:
    path = described(tmp_path, "nodes = [{}]\nclients = { load = 0.5 }")
    assert [each.name for each in scenarios(["weights", str(path), "weights"])] == ["weights", "fleet"]
    assert [each.name for each in scenarios(["all"])] == list(SCENARIOS)
    assert policies(["oracle", "rotation"]) == ["rotation", "oracle"]
    assert policies(["all"]) == [*names(), "oracle"]


def test_options_of_a_policy_are_checked_before_anything_runs() -> None:
    assert policies(["probed?ask=2", "zone?zone=a"]) == ["probed?ask=2", "zone?zone=a"]
    with pytest.raises(BadOption, match="ask"):
        policies(["probed?ask=many"])


def test_policies_are_told_what_a_client_of_that_fleet_would_know() -> None:
    nodes = (Nodes(count=2, zone="a", version="1", weight=9), Nodes(zone="b c", version="2", weight=2))
    scenario = Scenario(nodes=nodes, clients=Clients(count=3, load=0.5))
    assert [told("zone", scenario, client) for client in range(3)] == ["zone?zone=a", "zone?zone=a", "zone?zone=b+c"]
    assert told("split", scenario, 0) == "split?1=18&2=2"
    assert told("zone?zone=z", scenario, 0) == "zone?zone=z"
    assert told("rotation", scenario, 0) == "rotation"


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BadOption, match=r"no scenario is called 'busy'; choose one of: equal, many-clients"):
        scenarios(["busy"])
    with pytest.raises(BadOption, match=r"choose one of: .*rotation"):
        policies(["busy"])
