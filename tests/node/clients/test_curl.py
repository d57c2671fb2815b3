"""curl, as docs/protocol.md shows it: files by name, from standard input, as a form of several, compressed."""

import asyncio
import gzip
import json

import pytest


@pytest.fixture
def ask(curl, node, tmp_path):
    """Run curl against the node in a folder with files of these names; gives the status and the answer."""

    async def run(*options, stdin=b"", path="/classify", **files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        process = await asyncio.create_subprocess_exec(
            *(curl, "--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}"),
            *options,
            node.url + path,
            cwd=tmp_path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        assert process.returncode == 0, err.decode()
        body, _, status = out.decode().rpartition("\n")
        return int(status), json.loads(body)

    return run


def best(answer):
    return {each["name"]: each["predictions"][0]["index"] for each in answer["results"]}


async def test_an_image_by_name_and_from_standard_input(ask, png):
    for options, stdin in ((("--data-binary", "@seven.png"), b""), (("--data-binary", "@-"), png(190))):
        status, answer = await ask(*options, stdin=stdin, **{"seven.png": png(190)})
        assert (status, best(answer)) == (200, {"": 7})


async def test_a_form_of_several_files_answers_by_their_names(ask, png):
    files = {"one.png": png(30), "seven.png": png(190), "broken.png": b"no picture"}
    parts = [option for name in files for option in ("--form", f"image=@{name}")]
    status, answer = await ask(*parts, "--form", "note=these are digits", **files)
    assert status == 200
    assert [each["name"] for each in answer["results"]] == list(files)
    assert best({"results": answer["results"][:2]}) == {"one.png": 1, "seven.png": 7}
    assert answer["results"][2]["reason"] == "bad_image"


async def test_a_form_whose_boundary_and_names_curl_chose(ask, png):
    """A name with a quote and one beyond ASCII; a type that the user gives."""
    parts = ("--form", 'a=@one.png;filename="ein \\"süßer\\" Hund.png";type=image/png')
    status, answer = await ask(*parts, **{"one.png": png(30)})
    assert status == 200
    assert list(best(answer).values()) == [1]
    assert "süßer" in answer["results"][0]["name"]


async def test_a_large_form_waits_for_100_continue_and_is_sent(ask, photo):
    """curl asks first (``Expect: 100-continue``) where a body is larger than a megabyte."""
    files = {f"{number}.jpg": photo for number in range(16)}
    assert sum(map(len, files.values())) > 1024 * 1024
    parts = [option for name in files for option in ("--form", f"image=@{name}")]
    status, answer = await ask(*parts, **files)
    assert (status, len(answer["results"])) == (200, 16)


async def test_a_form_that_is_compressed(ask, png):
    body = b'--B\r\nContent-Disposition: form-data; name="a"; filename="one.png"\r\n\r\n' + png(30) + b"\r\n--B--\r\n"
    headers = ("--header", "Content-Type: multipart/form-data; boundary=B", "--header", "Content-Encoding: gzip")
    status, answer = await ask(*headers, "--data-binary", "@form.gz", **{"form.gz": gzip.compress(body)})
    assert (status, best(answer)) == (200, {"one.png": 1})


async def test_a_form_without_a_file_is_told_what_is_missing(ask):
    status, answer = await ask("--form", "note=no picture at all")
    assert (status, answer["reason"]) == (400, "empty")
