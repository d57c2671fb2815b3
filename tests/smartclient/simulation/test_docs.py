"""docs/policies.md says what there is: its example works, and every policy and scenario stands in it."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec

from smartclient.policies.select import DEFAULT, named, names
from smartclient.simulation import scenario as described_by
from smartclient.simulation.described import read
from smartclient.simulation.scenarios import SCENARIOS
from smartclient.simulation.service import Service
from smartclient.simulation.world import simulate

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "policies.md").read_text()


def test_the_example_of_a_fleet_can_be_run(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "fleet.toml"
    path.write_text(example)
    scenario = msgspec.structs.replace(read(path), requests=200)
    assert simulate(scenario, "rotation", named, seed=1).errors == 0


def test_every_policy_has_a_row_and_every_scenario_a_column() -> None:
    rows = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
    heads = [{*row[1:-1], row[-1].removesuffix(" |")} for row in rows if row[0] == "| p99, ms"]
    assert set().union(*heads) == set(SCENARIOS)
    for policy in names():
        assert sum(row[0].removeprefix("| ").strip("*").startswith(policy) for row in rows) >= len(heads), policy
        assert f"**{policy}**" in TEXT
    assert f"**{DEFAULT}** (default)" in TEXT


def test_every_scenario_is_described_in_its_own_words() -> None:
    for scenario in SCENARIOS.values():
        assert f"| `{scenario.name}` | {scenario.about} |" in TEXT


def test_every_field_of_a_description_is_explained() -> None:
    kinds = [described_by.Scenario, described_by.Nodes, described_by.Clients, described_by.Slow, *Service.__args__]
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in TEXT, field.encode_name


def test_the_chart_is_of_the_same_policies_and_scenarios() -> None:
    root = ET.parse(DOCS / "policies.svg").getroot()
    words = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {*names(), "oracle", *SCENARIOS} <= words
