import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.model import Health
from registry.query import Query
from registry.testing import instance

ONE = instance(1, zone="a", version="2", tags=("GPU", "big"), meta={"rack": "7", "zone": "a", "version": "2"})


@pytest.mark.parametrize(
    ("filters", "objection"),
    [
        ({}, None),
        ({"zone": "a", "version": "2", "tag": "gpu", "meta": {"rack": "7"}}, None),
        ({"meta": {"zone": "a"}}, None),
        ({"zone": "b"}, "its zone is a, not b"),
        ({"zone": "A"}, "its zone is a, not A"),
        ({"version": "3"}, "its version is 2, not 3"),
        ({"tag": "small"}, "it has no tag small (it has GPU, big)"),
        ({"meta": {"rack": "8"}}, "its metadata rack is 7, not 8"),
        ({"meta": {"rack": "7", "row": "1"}}, "its metadata row is not given, not 1"),
    ],
)
def test_a_filter_leaves_out_what_does_not_match_and_says_why(filters, objection):
    query = Query("digits", **filters)
    assert query.wants(ONE) is (objection is None)
    assert list(query.objections(ONE)) == ([] if objection is None else [objection])


@pytest.mark.parametrize("health", [Health.WARNING, Health.CRITICAL, Health.DRAINING])
def test_only_passing_ones_unless_all_are_asked_for(health):
    unwell = instance(1, health=health)
    assert not Query("digits").wants(unwell)
    assert list(Query("digits").objections(unwell)) == [f"it is {health}"]
    assert Query("digits", passing_only=False).wants(unwell)


def test_what_an_instance_does_not_say_is_told_so():
    query = Query("digits", zone="a", version="1", tag="t")
    assert list(query.objections(instance(1))) == [
        "its zone is not given, not a",
        "its version is not given, not 1",
        "it has no tag t",
    ]


_words = st.sampled_from(["", "a", "A", "b"])
_metas = st.dictionaries(st.sampled_from(["k", "l"]), _words, max_size=2)


@given(
    st.builds(
        Query, st.just("digits"), tag=_words, zone=_words, version=_words, meta=_metas, passing_only=st.booleans()
    ),
    st.builds(
        instance, st.just(1), tags=st.tuples(_words), zone=_words, version=_words, meta=_metas,
        health=st.sampled_from(Health),
    ),
)  # fmt: skip
def test_an_instance_is_out_exactly_when_there_is_an_objection(query, one):
    assert query.wants(one) is not any(query.objections(one))
