"""``twostep infer`` as a person and a program use it: a process of its own, against stub nodes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smartclient.policies.select import DEFAULT, names

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "infra.cli", "infer"]


def infer(*arguments: object, stdin: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TWOSTEP", "CONSUL"))}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        **options,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine images in two folders."""
    for number in range(9):
        path = tmp_path / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"png")
    return tmp_path


def test_a_folder_gives_a_row_each_and_a_summary(served, folder: Path) -> None:
    done = infer("digits", folder, "--policy", "rotation", "--registry", served.registry)
    assert done.returncode == 0
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["image", "label", "score", "node", "ms"]
    assert len(rows) == 9
    assert re.fullmatch(r"\S+/[ab]/\d\.png +7 +0\.900 digits-[123] +\d+\.\d", rows[0])
    assert re.fullmatch(r"9 images, 0 failed, [\d.]+ images/s; digits-1: 3, digits-2: 3, digits-3: 3\n", done.stderr)


def test_json_lines_on_standard_output_and_nothing_else(served, folder: Path) -> None:
    done = infer("digits", folder, folder / "nowhere.png", "--json", "--top", 3, "--registry", served.registry)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert len(lines) == 10
    [failed] = [line for line in lines if "error" in line]
    assert failed["image"] == str(folder / "nowhere.png")
    assert (failed["reason"], "no such file" in failed["error"]) == ("unreadable", True)
    assert set(lines[0] if lines[0] is not failed else lines[1]) == {
        "image",
        "label",
        "score",
        "predictions",
        "node",
        "model",
        "version",
        "milliseconds",
        "attempts",
    }


def test_explain_tells_of_the_first_image_who_stood_to_choose_and_why_one_was_chosen(served, folder: Path) -> None:
    done = infer("digits", folder, "--explain", "--policy", "p2c", "--registry", served.registry)
    assert done.returncode == 0
    head, columns, *rows, summary = done.stderr.splitlines()
    assert re.fullmatch(
        r"policy p2c: 3 of 3 nodes stood to choose; 127\.0\.0\.1:\d+ was chosen: no score of the 3 is lower", head
    )
    assert columns.split()[:3] == ["node", "endpoint", "health"]
    assert [row.startswith("> ") for row in rows] == [True, False, False]
    assert summary.startswith("9 images, 0 failed")
    assert len(done.stdout.splitlines()) == 1 + 9, "results are as ever"


def test_explain_in_json_is_a_field_of_the_first_images_object(served, folder: Path) -> None:
    done = infer("digits", folder, "--explain", "--json", "--policy", "rotation", "--registry", served.registry)
    first, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(others) == 8
    assert not any("explanation" in each for each in others)
    assert set(first["explanation"]) == {"policy", "endpoints", "unused", "choices"}
    [choice] = first["explanation"]["choices"]
    assert (choice["policy"], len(choice["endpoints"])) == ("rotation", 3)
    assert len(done.stderr.splitlines()) == 1


def test_explain_of_an_image_that_cannot_be_read_shows_the_nodes_all_the_same(served, folder: Path) -> None:
    done = infer("digits", folder / "nowhere.png", "--explain", "--registry", served.registry)
    assert done.returncode == 1
    assert "3 of 3 nodes stood to choose; nothing was sent" in done.stderr
    assert "failed: " in done.stderr


def test_each_failure_is_told_with_its_reason_and_the_others_go_on(served, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"bad")
    done = infer("digits", folder, folder / "nowhere.png", "--registry", served.registry)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1 + 9
    assert re.search(r"failed: \S+/bad\.png: digits-[123]: not an image\n", done.stderr)
    assert re.search(r"failed: \S+/nowhere\.png: cannot read .*: no such file or directory\n", done.stderr)
    assert "11 images, 2 failed" in done.stderr


def test_paths_come_from_standard_input_one_a_line(served, folder: Path) -> None:
    (folder / "a b é.png").write_bytes(b"png")
    paths = "".join(f"{path}\n" for path in folder.rglob("*.png"))
    done = infer("digits", "--stdin", "--json", "--registry", served.registry, stdin=paths)
    assert done.returncode == 0
    assert {json.loads(line)["image"] for line in done.stdout.splitlines()} == set(paths.splitlines())


def test_a_result_is_printed_before_the_next_path_comes(served, folder: Path) -> None:
    command = [*COMMAND, "digits", "--stdin", "--json", "--registry", served.registry]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as it:
        for _ in range(2):
            it.stdin.write(f"{folder}/b/0.png\n".encode())
            it.stdin.flush()
            assert json.loads(it.stdout.readline())["label"] == "7"
        it.stdin.close()
        assert it.wait(timeout=20) == 0


def test_nothing_to_classify_is_wrong_usage(served, tmp_path: Path) -> None:
    for arguments in ([], [tmp_path], ["--stdin"]):
        done = infer("digits", *arguments, "--registry", served.registry)
        assert done.returncode == 2
        assert "Usage:" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--registry", "consul://127.0.0.1:1"],
            r"cannot look 'digits' up: .*consul://127\.0\.0\.1:1.*twostep registry",
        ),
        (["--registry", "gopher://x"], r"'gopher://x' is not a registry address"),
        (["--registry", "static://127.0.0.1:1", "--policy", "fastest"], r"no policy is called 'fastest'"),
    ],
)
def test_what_stops_everything_is_one_line_at_once(folder: Path, options: list[str], message: str) -> None:
    done = infer("digits", folder, *options)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr)


def test_a_dead_fleet_fails_every_image_with_every_attempt(folder: Path) -> None:
    done = infer("digits", folder, "--registry", "static://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.count("connection refused") >= 9
    assert "9 images, 9 failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example() -> None:
    done = infer("--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout
    assert "twostep infer digits photo.jpg" in done.stdout
    said = " ".join(done.stdout.split())
    assert f"{', '.join(names())}. docs/policies.md" in said
    assert f"[default: {DEFAULT}]" in said
    assert "--hedge" in said
    assert "--model NAME" in said
    assert "--version V" in said
    assert "the file TWOSTEP_NODE_TOKEN_FILE, or in TWOSTEP_NODE_TOKEN" in said
    assert "TWOSTEP_CACERT" in said


def test_ctrl_c_ends_it_cleanly_even_while_it_waits_for_a_path(served, folder: Path) -> None:
    command = [*COMMAND, "digits", "--stdin", "--registry", served.registry]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as it:
        it.stdin.write(f"{folder}/b/0.png\n".encode())
        it.stdin.flush()
        it.stdout.readline()
        assert b"7" in it.stdout.readline()
        it.send_signal(signal.SIGINT)
        assert it.wait(timeout=20) == 130
        assert b"Traceback" not in (said := it.stderr.read())
        assert b"1 image, 0 failed" in said


def test_a_reader_that_leaves_ends_it_quietly(served, folder: Path) -> None:
    paths = f"{folder}/b/0.png\n" * 3000
    (folder / "list").write_text(paths)
    command = f"{' '.join(COMMAND)} digits --stdin --json --registry {served.registry} < {folder}/list | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["label"] == "7"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_terminal_shows_progress_and_a_pipe_does_not(served, folder: Path) -> None:
    leader, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "digits", str(folder), "--registry", served.registry],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    ) as it:
        os.close(terminal)
        rows = it.stdout.read().decode()
        shown = b""
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:
            pass  # the terminal's other end is closed
        assert it.wait(timeout=20) == 0
    os.close(leader)
    assert len(rows.splitlines()) == 10
    assert "\x1b" not in rows
    assert b"Classifying" in shown
    assert b"9/9" in shown
    assert b"images/s" in shown
