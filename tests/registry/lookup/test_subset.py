from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from registry.lookup.subset import SPARE, Subset

ids = st.text("abcdef", min_size=1, max_size=3)
steps = st.lists(st.tuples(st.booleans(), ids), max_size=60)


def chosen(client, limit, names):
    subset = Subset(client, limit)
    for _ in subset.scan(names):
        pass
    return subset


@given(st.text(max_size=5), st.integers(1, 6), st.lists(ids, unique=True), st.randoms())
def test_the_order_of_instances_does_not_matter(client, limit, names, rng):
    shuffled = rng.sample(names, len(names))
    subset = chosen(client, limit, names)
    assert subset.members == chosen(client, limit, shuffled).members
    assert len(subset.members) == min(limit, len(names))
    assert subset.members <= set(names)


@given(st.text(max_size=5), st.integers(1, 6), st.sets(ids), ids)
def test_one_instance_more_or_less_changes_one_member_at_most(client, limit, names, other):
    without, with_it = (chosen(client, limit, each).members for each in (names - {other}, names | {other}))
    assert with_it - without <= {other}
    assert len(without - with_it) <= 1


@given(st.text(max_size=5), st.integers(1, 4), st.sets(ids, max_size=60), steps)
def test_following_changes_gives_what_choosing_afresh_gives(client, limit, names, changes):
    subset, names = chosen(client, limit, names), set(names)
    for present, name in changes:
        (names.add if present else names.discard)(name)
        before = subset.members
        other = subset.update([name] if present else [], [] if present else [name])
        assert other == (subset.members != before)
        if subset.thin:
            for _ in subset.scan(names):
                pass
        assert subset.members == chosen(client, limit, names).members


def test_a_lost_member_is_replaced_without_scoring_all_again():
    names = {f"digits-{number}" for number in range(3000)}
    subset = chosen("client", 20, names)
    for _ in range(SPARE - 1):
        lost = min(subset.members)
        names.discard(lost)
        assert subset.update([], [lost])
        assert not subset.thin
        assert subset.members == chosen("client", 20, names).members


def test_all_machines_choose_the_same_for_a_client():
    # Written down, so that another version that would choose differently is noticed: services stand side by side.
    names = [f"digits-{number}" for number in range(100)]
    assert sorted(chosen("client-1", 3, names).members) == ["digits-15", "digits-35", "digits-44"]


def test_clients_spread_over_all_instances():
    names = [f"digits-{number}" for number in range(100)]
    counts = Counter(name for client in range(1000) for name in chosen(f"client-{client}", 10, names).members)
    # Binomial(1000, 0.1): mean 100, standard deviation 9.5; fixed names, so no chance is left in the test.
    assert len(counts) == 100
    assert min(counts.values()) > 60
    assert max(counts.values()) < 145


def test_long_lists_are_scored_in_steps():
    assert sum(1 for _ in Subset("client", 20).scan(f"digits-{number}" for number in range(10_000))) >= 5
