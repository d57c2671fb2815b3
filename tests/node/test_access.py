"""Bearer tokens of the node: who may use it, who may steer it, and what is said to those who may not."""

import pytest

from node.access import Access
from node.errors import Forbidden, NodeError, RequestError, Unauthorized

USER, ADMIN = "user-token-1", "admin-token-1"


@pytest.fixture
def files(tmp_path):
    users, admins = tmp_path / "users", tmp_path / "admins"
    users.write_text(f"{USER}\n")
    admins.write_text(f"{ADMIN}\n")
    return users, admins


@pytest.fixture
def access(files):
    return Access.from_files(*files)


def refusal(access, header, realm="inference"):
    with pytest.raises(RequestError) as caught:
        access.check(header, realm)
    return caught.value


def test_without_tokens_everybody_may_use_a_node_and_nobody_may_steer_it():
    access = Access.from_files(None, None)
    for header in (None, "", "Bearer anything"):
        access.check(header, "inference")
    error = refusal(access, "Bearer anything", "admin")
    assert (type(error), error.status, error.reason) == (Forbidden, 403, "forbidden")
    assert "--admin-token-file" in str(error)


@pytest.mark.parametrize("header", [f"Bearer {USER}", f"bearer {USER}", f"  BEARER   {USER} "])
def test_the_token_opens_inference_however_the_scheme_is_written(access, header):
    access.check(header, "inference")


def test_who_may_steer_may_use_too(access):
    access.check(f"Bearer {ADMIN}", "inference")
    access.check(f"Bearer {ADMIN}", "admin")


@pytest.mark.parametrize("realm", ["inference", "admin"])
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", USER, ADMIN, f"Basic {ADMIN}", f"Token {ADMIN}"])
def test_who_sends_no_token_is_told_how(access, header, realm):
    error = refusal(access, header, realm)
    assert (type(error), error.status, error.reason) == (Unauthorized, 401, "unauthorized")
    assert error.headers == {"WWW-Authenticate": "Bearer"}
    assert "Authorization: Bearer TOKEN" in str(error)


@pytest.mark.parametrize("realm", ["inference", "admin"])
@pytest.mark.parametrize(
    "token", [ADMIN[:-1], ADMIN + "1", ADMIN.upper(), f"{USER} {ADMIN}", "ünlike", "\udcff", "x" * 9000]
)
def test_a_wrong_token_is_refused_and_not_repeated(access, token, realm):
    error = refusal(access, f"Bearer {token}", realm)
    assert isinstance(error, Unauthorized)
    assert "none of those" in str(error)
    for secret in (token, USER, ADMIN):
        assert secret not in f"{error} {error!r} {error.headers} {error.details}"


def test_a_token_for_inference_does_not_steer_and_is_told_so(access):
    error = refusal(access, f"Bearer {USER}", "admin")
    assert isinstance(error, Forbidden)
    assert "inference only" in str(error)


def test_admin_tokens_alone_leave_inference_open(files):
    access = Access.from_files(None, files[1])
    access.check(None, "inference")
    access.check(f"Bearer {ADMIN}", "admin")
    assert isinstance(refusal(access, None, "admin"), Unauthorized)


def test_inference_tokens_alone_leave_steering_off(files):
    access = Access.from_files(files[0], None)
    assert isinstance(refusal(access, f"Bearer {USER}", "admin"), Forbidden)
    assert isinstance(refusal(access, f"Bearer {ADMIN}"), Unauthorized)


def test_a_rotation_overlaps_and_needs_no_restart(access, files):
    files[0].write_text(f"{USER}\nuser-token-2\n")
    access.check(f"Bearer {USER}", "inference")
    access.check("Bearer user-token-2", "inference")
    files[0].write_text("user-token-2\n")
    assert isinstance(refusal(access, f"Bearer {USER}"), Unauthorized)
    access.check("Bearer user-token-2", "inference")


def test_a_file_that_cannot_be_read_is_one_line_that_names_the_flag(tmp_path, files):
    with pytest.raises(NodeError, match=r"^--token-file: the token file .*none cannot be read: No such file"):
        Access.from_files(tmp_path / "none", files[1])
    files[1].write_text("two words")
    with pytest.raises(NodeError, match=r"^--admin-token-file: .* one token on each line") as caught:
        Access.from_files(None, files[1])
    assert "two words" not in str(caught.value)


def test_nothing_shows_a_token(access):
    assert USER not in repr(access)
    assert USER not in repr(access._inference)
