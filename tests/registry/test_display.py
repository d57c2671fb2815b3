import pytest
from rich.cells import cell_len

from registry.consul.reports import CheckReport
from registry.model import Health
from registry.query import Query
from registry.show.explain import explain
from registry.show.tables import show_explained, show_table
from registry.testing import instance

SHORT = [instance(1, zone="a"), instance(2, health=Health.CRITICAL)]
HOSTILE = [
    *SHORT,
    instance(3, id="図" * 100, zone="\x1b[31m", tags=("[red]markup[/red]", "x" * 1_000_000), health=Health.DRAINING),
    instance(4, address="fd00::1234:5678:9abc:def0:1:1", version="\u202e" * 30),
]
OUTPUT = 'Get "http://127.0.0.1:9002/": dial tcp 127.0.0.1:9002: connect: connection refused [/bold]' + "y" * 1_000_000
CHECKS = {"digits-2": (CheckReport("mem", "Memory", "critical", OUTPUT, "", "digits-2"),)}


@pytest.fixture
def wide(monkeypatch):
    return lambda columns: monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_nothing_is_wider_than_the_terminal_or_harms_it(wide, capsys, columns):
    wide(columns)
    show_table("digits", HOSTILE, "4 instances")
    show_explained("digits", explain(Query("digits"), HOSTILE, CHECKS), "index 1")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert all(cell_len(line) <= columns and line.isprintable() for line in lines)


def test_short_values_are_whole_and_columns_without_values_left_out(wide, capsys):
    wide(80)
    show_table("digits at consul://h", SHORT, "2 instances; index 7, fresh")
    assert capsys.readouterr().out.splitlines() == [
        "digits at consul://h",
        "id        address         health    zone  weight",
        "digits-1  127.0.0.1:9001  passing   a     1",
        "digits-2  127.0.0.1:9002  critical  -     1",
        "2 instances; index 7, fresh",
    ]


def test_reasons_stand_below_their_instance_and_wrap(wide, capsys):
    wide(80)
    checks = {"digits-2": (CheckReport("mem", "", "critical", OUTPUT[:86], "", "digits-2"),)}
    show_explained("digits: 1 in, 1 out", explain(Query("digits"), SHORT, checks), "index 7, fresh")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "digits: 1 in, 1 out",
        "in   digits-1  127.0.0.1:9001  passing   a  weight 1",
        "out  digits-2  127.0.0.1:9002  critical  -  weight 1",
        '     check mem is critical: Get "http://127.0.0.1:9002/": dial tcp',
        "     127.0.0.1:9002: connect: connection refused [/b",
        "index 7, fresh",
    ]
