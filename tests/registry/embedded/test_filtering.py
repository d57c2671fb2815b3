"""What each expression selects is compared with Consul in ``tests/contracts/test_consul_api.py``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.embedded.definitions import BadRequest
from registry.embedded.fields import HEALTH
from registry.embedded.filtering import predicate

ENTRY = {
    "Node": {"Node": "embedded", "Meta": {}},
    "Service": {"ID": "d-1", "Service": "digits", "Port": 9001, "Tags": ["a", "b"], "Meta": {"zone": "z1", "x-y": ""}},
    "Checks": [{"Status": "passing", "ServiceTags": ["a"]}, {"Status": "warning", "ServiceTags": []}],
}


def holds(expression):
    return predicate(expression, HEALTH)(ENTRY)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Service.Meta.zone == z1", True),
        ('Service.Meta["x-y"] == ""', True),
        ("Service.Meta.none == z1", False),
        ("Service.Meta.none != z1", True),
        ("Service.Meta.none matches z1", False),
        ("Service.Meta.none not matches z1", True),
        ("Service.Port == 9001", True),
        ("Service.EnableTagOverride == false", True),
        ("b in Service.Tags", True),
        ("not not b not in Service.Tags", False),
        ("not in Service.Tags", False),
        ("Service.Tags is not empty", True),
        ("Node.Meta is empty", True),
        ("Checks.Status == warning", True),
        ("Checks.Status != passing", True),
        ("Checks.Status == critical", False),
        ("Checks.ServiceTags is empty", True),
        ('Service.ID matches "^d-[0-9]$" and (Service.Port == 1 or Service.Service == digits)', True),
        ("Service.Port == 1 or Service.Port == 2 and Service.ID == x", False),
    ],
)
def test_an_expression_selects(expression, expected):
    assert holds(expression) is expected


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "ends too soon"),
        ("Service.ID ==", "ends too soon"),
        ("Service.ID == a b", "unexpected ' b' at character 16"),
        ("(Service.ID == a", "unmatched parentheses"),
        ('Service.ID == "\\q"', "invalid string"),
        ("Service.Bogus == 1", 'Selector "Service.Bogus" is not valid'),
        ("Service.Tags == a", 'Invalid match operator "==" for selector "Service.Tags"'),
        ("Service.Port == a", 'Failed to coerce value "a" for selector "Service.Port"'),
        ("Service.ID matches `(`", "Failed to compile regular expression"),
        ("(" * 100_000, "longer than"),
        ("(" * 1000, "too deeply"),
        ("not " * 1000, "too deeply"),
    ],
)
def test_a_wrong_one_is_refused_and_says_why(expression, why):
    with pytest.raises(BadRequest) as caught:
        predicate(expression, HEALTH)
    assert why in str(caught.value)


WORDS = st.sampled_from(
    ["Service", ".ID", "Node", ".Meta", ".zone", '["zone"]', ".Tags", "Checks.Status", " == ", " != ", " in ", " not ",
     " is ", "empty", " contains ", " matches ", " and ", " or ", "(", ")", '"a"', "`b`", "1", "-", "\\", "\n", "["]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(WORDS, max_size=20).map("".join)))
def test_nothing_but_a_bad_request_ever_comes_out(expression):
    try:
        assert holds(expression) in {True, False}
    except BadRequest:
        pass
