"""Bad input gets one clear line, and the node goes on serving."""

import io
import json
import socket
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from infra.consul.agent import free_port
from infra.fleet import LocalFleet
from tests.support import Run

pytestmark = [pytest.mark.e2e, pytest.mark.tensorflow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(digits_model: Path) -> AsyncIterator[LocalFleet]:
    with LocalFleet() as fleet:
        fleet.start_registry()
        fleet.start_node("node-1", digits_model, "--name", "digits", port=free_port())
        await fleet.wait_passing("digits", 1)
        yield fleet


@pytest.fixture
def post(fleet: LocalFleet, curl: str, tmp_path: Path) -> Callable[[bytes], tuple[int, dict[str, object]]]:
    port = fleet.nodes["node-1"].popen.args[fleet.nodes["node-1"].popen.args.index("--port") + 1]

    def send(body: bytes) -> tuple[int, dict[str, object]]:
        (tmp_path / "body").write_bytes(body)
        command = [curl, "-sS", "-w", "\n%{http_code}", "--data-binary", f"@{tmp_path / 'body'}"]
        command += ["-H", "Content-Type: image/any", f"http://127.0.0.1:{port}/classify"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        answer, status = done.stdout.rsplit("\n", 1)
        return int(status), json.loads(answer)

    return send


def huge_png(side: int = 50_000) -> bytes:
    """A well-formed PNG of side x side grey pixels, in a few hundred kB: its size is a lie about nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])  # one bit, grey
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def truncated_jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((640, 480), 80).save(out, "JPEG")
    return out.getvalue()[: len(out.getvalue()) // 2]


@pytest.mark.parametrize(
    ("body", "status", "reason", "word"),
    [
        pytest.param(lambda: b"", 400, "empty", "body", id="no body"),
        pytest.param(lambda: b"<html>no picture</html>", 422, "bad_image", "image", id="not an image"),
        pytest.param(truncated_jpeg, 422, "bad_image", "truncated", id="truncated JPEG"),
        pytest.param(huge_png, 413, "too_large", "50,000,000 pixels", id="50,000 x 50,000 PNG"),
        pytest.param(lambda: b"\xff" * 100_000_000, 413, "too_large", "MiB", id="100 MB body"),
    ],
)
def test_a_bad_body_is_refused_with_its_reason_and_the_node_serves_on(
    body: Callable[[], bytes],
    status: int,
    reason: str,
    word: str,
    post: Callable[[bytes], tuple[int, dict[str, object]]],
    digits_model: Path,
) -> None:
    got, answer = post(body())
    assert (got, answer["reason"]) == (status, reason)
    assert word in str(answer["error"])
    good = next((digits_model / "samples" / "7").glob("*.png"))
    status_after, after = post(good.read_bytes())
    assert status_after == 200
    assert after["results"][0]["predictions"]


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 1 and exactly one line of error, which holds ``words``."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_a_failed_image_is_named_with_its_reason_and_the_others_are_answered(
    fleet: LocalFleet, run: Run, digits_model: Path, tmp_path: Path
) -> None:
    good = next((digits_model / "samples" / "3").glob("*.png"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    done = run(
        "infer",
        "digits",
        str(good),
        str(tmp_path / "broken.png"),
        str(tmp_path / "absent.png"),
        "--json",
        "--registry",
        fleet.address,
    )
    assert done.returncode == 1
    lines = {Path(line["image"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert lines[good.name]["label"] == "3"
    assert "image" in lines["broken.png"]["error"]
    assert "no such file" in lines["absent.png"]["error"]


def test_an_unknown_service_is_one_line(fleet: LocalFleet, run: Run, digits_model: Path) -> None:
    image = str(next((digits_model / "samples" / "3").glob("*.png")))
    one_line(run("lookup", "nobody", "--registry", fleet.address), "nobody")
    done = run("infer", "nobody", image, "--registry", fleet.address)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_registry_at_that_address_is_one_line(run: Run, digits_model: Path) -> None:
    address = f"consul://127.0.0.1:{free_port()}"
    image = str(next((digits_model / "samples" / "3").glob("*.png")))
    one_line(run("lookup", "digits", "--registry", address), address)
    done = run("infer", "digits", image, "--registry", address)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_model_is_one_line(run: Run, tmp_path: Path) -> None:
    one_line(run("node", "--model", str(tmp_path), "--port", "0", "--no-register"), str(tmp_path))
    one_line(run("node", "--model", str(tmp_path / "absent"), "--port", "0", "--no-register"), "absent")


def test_a_port_in_use_is_one_line(run: Run, digits_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        one_line(run("node", "--model", str(digits_model), "--port", port, "--no-register"), port, "in use")
        one_line(run("registry", "--port", port), port, "in use")


@pytest.mark.parametrize(
    ("absent", "command", "extra"),
    [
        ("click", ["--help"], "twostep[cli]"),
        ("tensorflow", ["node", "--model", "MODEL", "--no-register", "--port", "0"], "twostep[node]"),
        ("sklearn", ["train", "digits", "--out", "OUT"], "twostep[demo]"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    absent: str, command: list[str], extra: str, digits_model: Path, tmp_path: Path
) -> None:
    arguments = [part.replace("MODEL", str(digits_model)).replace("OUT", str(tmp_path / "m")) for part in command]
    without = f"import sys; sys.modules[{absent!r}] = None"
    script = f"{without}; from infra.cli import main; main({arguments!r}, prog_name='twostep')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    one_line(done, f"pip install '{extra}'")


def test_every_command_has_help_with_an_example(run: Run) -> None:
    listed = run("--help")
    assert listed.returncode == 0
    for command in ("demo", "registry", "train", "node", "lookup", "infer", "bench"):
        assert command in listed.stdout
        shown = run(command, "--help")
        assert shown.returncode == 0
        assert "Example" in shown.stdout, command


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    done = run("sreve")
    assert done.returncode == 2
    assert "sreve" in done.stderr


def test_help_needs_no_tensorflow() -> None:
    script = "import sys; from infra.cli import main\ntry: main(['node', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", script + "print('loaded', 'tensorflow' in sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "loaded False" in done.stdout
