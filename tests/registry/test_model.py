from registry.model import Delta, Snapshot, diff
from registry.testing import instance


def snapshot(*instances):
    return Snapshot(service="digits", index=1, instances=instances, fetched_at=0.0)


def test_diff_from_nothing_is_all_added():
    assert diff(None, snapshot(instance(1), instance(2))) == Delta(added=(instance(1), instance(2)))


def test_diff_names_what_came_what_went_and_the_new_value_of_what_changed():
    changed = instance(2, weight=5)
    delta = diff(snapshot(instance(1), instance(2), instance(3)), snapshot(changed, instance(3), instance(4)))
    assert delta == Delta(added=(instance(4),), removed=(instance(1),), changed=(changed,))


def test_no_difference_is_false():
    assert not diff(snapshot(instance(1)), snapshot(instance(1)))


def test_endpoint_brackets_an_ipv6_address():
    assert instance(1, address="::1").endpoint == "[::1]:9001"


def test_url_takes_its_scheme_from_the_metadata():
    assert instance(1).url == "http://127.0.0.1:9001"
    assert instance(1, meta={"scheme": "https"}).url == "https://127.0.0.1:9001"
