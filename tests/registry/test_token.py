import os

import pytest

from registry.errors import ConfigurationError
from registry.token import Token, Tokens


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


def test_a_token_is_as_given_without_the_space_around_it():
    assert Token(" text\n").read() == "text"
    assert Token().read() == ""


def test_a_file_goes_before_a_text(path):
    assert Token("text", path).read() == "first"


@pytest.mark.parametrize("later", ["other", "OTHER"])
def test_a_file_that_changed_is_read_again_even_within_one_tick_of_its_clock(path, later):
    token = Token(path=path)
    before = path.stat()
    path.write_text(later)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert token.read() == later


def test_a_file_that_was_replaced_by_renaming_is_read_again(path):
    token = Token(path=path)
    beside = path.with_name("new")
    beside.write_text("second")
    beside.rename(path)
    assert token.read() == "second"


@pytest.mark.parametrize("spoil", [
    lambda path: path.unlink(),
    lambda path: path.write_text(""),
    lambda path: path.write_text(" \n"),
    lambda path: path.write_bytes(b"\xff\xfe"),
    lambda path: path.write_text("two\nlines"),
])  # fmt: skip
def test_while_a_file_holds_no_token_the_last_one_stands(path, spoil):
    token = Token(path=path)
    spoil(path)
    assert token.read() == "first"
    path.write_text("second")
    assert token.read() == "second"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "it is no text"),
        (b"two\nlines", "no spaces, line breaks"),
    ],
)
def test_a_file_without_a_token_is_refused_at_the_start(path, content, words):
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        Token(path=path)


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigurationError, match="none cannot be read: No such file"):
        Token(path=tmp_path / "none")


@pytest.mark.parametrize("text", ["two words", "two\nlines", "ünlike", "esc\x1b"])
def test_a_text_that_no_header_can_carry_is_refused_and_not_repeated(text):
    with pytest.raises(ConfigurationError) as caught:
        Token(text)
    assert text not in str(caught.value)


def test_no_message_and_no_repr_holds_a_token_nor_the_one_before_it(path):
    token = Token(path=path)
    path.write_text("firstborn")
    assert token.read() == "firstborn"
    assert token.hide("first, firstborn and others") == "(token), (token) and others"
    assert Token().hide("anything") == "anything"
    assert "first" not in repr(token)
    assert repr(Token()) == "Token()"


def test_each_line_of_a_servers_file_is_a_token(path):
    path.write_text("\n  first  \n\nsecond\r\n")
    tokens = Tokens(path)
    assert [tokens.accept(each) for each in ("first", "second")] == [True, True]
    assert [tokens.accept(each) for each in ("", "firs", "first\nsecond", "third", "ünlike", "\udcff")] == [False] * 6


def test_a_servers_file_is_read_at_every_use(path):
    tokens = Tokens(path)
    path.write_text("second\nfirst")
    assert tokens.accept("first")
    assert tokens.accept("second")
    path.write_text("second")
    assert not tokens.accept("first")
    assert tokens.accept("second")


@pytest.mark.parametrize("spoil", [
    lambda path: path.unlink(),
    lambda path: path.write_text(" \n"),
    lambda path: path.write_bytes(b"\xff\xfe"),
    lambda path: path.write_text("second\nhalf a li"),
])  # fmt: skip
def test_while_a_servers_file_is_broken_the_last_tokens_stand(path, spoil):
    tokens = Tokens(path)
    spoil(path)
    assert tokens.accept("first")
    assert not tokens.accept("second")
    path.write_text("second")
    assert tokens.accept("second")
    assert not tokens.accept("first")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "it is no text"), (b"one\ntwo words", "one token on each line")],
)
def test_a_servers_file_without_tokens_is_refused_at_the_start_and_not_repeated(path, content, words):
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        Tokens(path)
    assert "two" not in str(caught.value)


def test_tokens_are_in_no_repr(path):
    assert repr(Tokens(path)) == "Tokens(...)"
