import pytest

from registry.embedded.catalog import Catalog, CheckRecord, Index, Probe, ServiceRecord, UnknownId
from registry.embedded.kv import KeyValues
from registry.embedded.views import Machine, health_entries

TTL = Probe(ttl=10.0)


@pytest.fixture
def index():
    return Index()


@pytest.fixture
def catalog(index):
    return Catalog(index)


def add(catalog, number=1, *, service="digits", probe=TTL, status="passing", now=0.0, **options):
    record = ServiceRecord(id=f"{service}-{number}", service=service, port=9000 + number)
    check = CheckRecord(id=f"service:{record.id}", name="c", service_id=record.id, status=status, probe=probe)
    catalog.register(record, [check], now, **options)
    return record.id


def status(catalog, number=1, service="digits"):
    return catalog.checks[f"service:{service}-{number}"].status


def test_every_change_raises_the_index_and_tells(catalog, index):
    told = []
    index.on_bump = lambda: told.append(index.value)
    service_id = add(catalog)
    catalog.report("service:digits-1", "critical", "", 0.0)
    catalog.maintenance(service_id, True, "", 0.0)
    catalog.maintenance(service_id, False, "", 0.0)
    catalog.deregister(service_id)
    assert told == sorted(set(told))
    assert len(told) >= 6


def test_a_service_has_an_index_of_its_own(catalog):
    add(catalog, service="digits")
    before = catalog.index_of("digits")
    add(catalog, service="faces")
    assert catalog.index_of("digits") == before
    assert catalog.index_of("faces") > before


def test_the_index_of_a_service_never_falls_when_it_goes_and_comes(catalog):
    seen = [catalog.index_of("digits")]
    for _ in range(3):
        add(catalog)
        seen.append(catalog.index_of("digits"))
        catalog.deregister("digits-1")
        seen.append(catalog.index_of("digits"))
    assert seen == sorted(set(seen))


def test_ever_new_names_leave_nothing_behind(catalog):
    def size():
        tables = (each for each in vars(catalog).values() if isinstance(each, dict))
        return sum(len(table) for table in tables)

    add(catalog, service="digits")
    before, seen = size(), catalog.index_of("digits")
    for number in range(10_000):
        service_id = add(catalog, service=f"service-{number}")
        if number % 3 == 0:
            catalog.maintenance(service_id, True, "", 0.0)
        catalog.deregister(service_id)
    assert size() == before
    assert catalog.index_of("digits") == seen
    assert catalog.index_of("service-0") == catalog.index_of("never seen") > seen


def test_what_an_instance_has_is_found_without_looking_at_the_others(catalog):
    class Unlisted(dict):
        def __iter__(self):
            raise AssertionError("looked at every one")

        values = items = keys = __iter__

    for number in range(3):
        add(catalog, number)
    catalog.services, catalog.checks = Unlisted(catalog.services), Unlisted(catalog.checks)
    entries = health_entries(catalog, Machine("id", "m", "127.0.0.1"), "digits", tags=[], passing_only=True)
    assert [len(entry["Checks"]) for entry in entries] == [2, 2, 2]
    add(catalog, 1, service="faces")
    catalog.deregister("digits-1")
    assert len(catalog.named("digits")) == 2


def test_a_check_that_moves_to_another_instance_leaves_the_first(catalog):
    for number in (1, 2):
        add(catalog, number)
    catalog.add_check(CheckRecord(id="service:digits-1", name="c", service_id="digits-2", probe=TTL), 0.0)
    assert catalog.checks_of("digits-1") == []
    assert [check.id for check in catalog.checks_of("digits-2")] == ["service:digits-1", "service:digits-2"]


def test_a_check_of_the_machine_touches_every_service(catalog):
    add(catalog)
    before = catalog.index_of("digits")
    catalog.maintenance("", True, "", 0.0)
    assert catalog.index_of("digits") > before


def test_output_alone_is_no_change(catalog, index):
    add(catalog)
    before = index.value
    catalog.report("service:digits-1", "passing", "still fine", 1.0)
    assert index.value == before
    assert catalog.checks["service:digits-1"].output == "still fine"


def test_silence_makes_a_ttl_check_critical_and_a_beat_puts_it_off(catalog):
    add(catalog)
    catalog.tick(9.9)
    assert status(catalog) == "passing"
    catalog.report("service:digits-1", "passing", "", 9.9)
    catalog.tick(19.8)
    assert status(catalog) == "passing"
    catalog.tick(19.9)
    assert status(catalog) == "critical"
    assert catalog.checks["service:digits-1"].output == "TTL expired"


def test_an_instance_critical_for_too_long_is_forgotten(catalog):
    add(catalog, probe=Probe(http="http://h/", interval=1.0, reap_after=90.0), now=0.0)
    catalog.report("service:digits-1", "critical", "", 10.0)
    catalog.report("service:digits-1", "critical", "again", 50.0)
    catalog.tick(99.0)
    assert "digits-1" in catalog.services
    catalog.tick(100.0)
    assert not catalog.services
    assert not catalog.checks


def test_it_is_never_forgotten_sooner_than_consul_would(catalog):
    add(catalog, probe=Probe(http="http://h/", interval=1.0, reap_after=1.0), status="critical", now=0.0)
    catalog.tick(59.0)
    assert catalog.services
    catalog.tick(60.0)
    assert not catalog.services


def test_recovery_starts_the_count_again(catalog):
    add(catalog, probe=Probe(http="http://h/", interval=1.0, reap_after=60.0), status="critical", now=0.0)
    catalog.report("service:digits-1", "passing", "", 50.0)
    catalog.report("service:digits-1", "critical", "", 55.0)
    catalog.tick(100.0)
    assert catalog.services


def test_two_overdue_checks_forget_one_instance_once(catalog):
    record = ServiceRecord(id="d", service="digits")
    probe = Probe(http="http://h/", interval=1.0, reap_after=60.0)
    checks = [CheckRecord(id=f"c{number}", name="c", service_id="d", probe=probe) for number in (1, 2)]
    catalog.register(record, checks, 0.0)
    catalog.tick(100.0)
    assert not catalog.services


def test_registering_again_keeps_the_status_of_the_check(catalog):
    add(catalog)
    catalog.report("service:digits-1", "critical", "dead", 0.0)
    add(catalog, status="passing")
    assert status(catalog) == "critical"


def test_replacing_checks_ends_maintenance_and_keeping_them_does_not(catalog):
    service_id = add(catalog)
    catalog.maintenance(service_id, True, "why", 0.0)
    add(catalog)
    assert "_service_maintenance:digits-1" in catalog.checks
    add(catalog, replace_checks=True)
    assert [check.id for check in catalog.checks_of(service_id)] == ["service:digits-1"]


def test_an_id_that_changes_its_service_leaves_the_old_one(catalog):
    add(catalog)
    before = catalog.index_of("digits")
    catalog.register(ServiceRecord(id="digits-1", service="faces"), [], 0.0)
    assert not list(catalog.named("digits"))
    assert catalog.index_of("digits") >= before


def test_names_do_not_mind_case(catalog):
    add(catalog, service="Digits")
    assert [each.id for each in catalog.named("dIGITS")] == ["Digits-1"]


@pytest.mark.parametrize(
    "call",
    [
        lambda catalog: catalog.deregister("x"),
        lambda catalog: catalog.remove_check("x"),
        lambda catalog: catalog.maintenance("x", True, "", 0.0),
        lambda catalog: catalog.add_check(CheckRecord(id="c", name="c", service_id="x"), 0.0),
    ],
)
def test_an_unknown_id_is_refused(catalog, call):
    with pytest.raises(UnknownId):
        call(catalog)


def test_restored_checks_have_their_time_counted_from_now(catalog):
    service = ServiceRecord(id="d", service="digits")
    check = CheckRecord(id="c", name="c", service_id="d", status="passing", probe=TTL)
    catalog.restore([service], [check], 1000.0)
    catalog.tick(1009.0)
    assert catalog.checks["c"].status == "passing"
    catalog.tick(1010.0)
    assert catalog.checks["c"].status == "critical"


def test_a_key_is_set_read_and_deleted(index):
    kv = KeyValues(index)
    assert kv.put("a", b"1", flags=3)
    assert (kv.get("a").value, kv.get("a").flags) == (b"1", 3)
    assert kv.delete("a")
    assert kv.get("a") is None
    assert kv.delete("a")


def test_compare_and_set_needs_the_index_of_what_was_read(index):
    kv = KeyValues(index)
    assert kv.put("a", b"1", cas=0)
    assert not kv.put("a", b"2", cas=0)
    assert kv.put("a", b"2", cas=kv.get("a").modify_index)
    assert not kv.delete("a", cas=1)
    assert kv.delete("a", cas=kv.get("a").modify_index)


def test_keys_are_cut_at_a_separator(index):
    kv = KeyValues(index)
    for key in ("a", "d/e", "d/f", "d/g/h"):
        kv.put(key, b"")
    assert kv.keys("", "") == ["a", "d/e", "d/f", "d/g/h"]
    assert kv.keys("", "/") == ["a", "d/"]
    assert kv.keys("d/", "/") == ["d/e", "d/f", "d/g/"]


def test_the_index_of_a_prefix_never_falls(index):
    kv = KeyValues(index)
    kv.put("a/b", b"1")
    before = kv.index_under("a")
    kv.put("z", b"1")
    assert kv.index_under("a") == before
    kv.delete("a", recurse=True)
    assert kv.index_under("a") > before


def test_a_key_has_an_index_of_its_own(index):
    kv = KeyValues(index)
    kv.put("a", b"1")
    before = kv.index_of("a")
    kv.put("ab", b"1")
    kv.delete("ab")
    assert kv.index_of("a") == before
    kv.delete("a")
    gone = kv.index_of("a")
    assert gone > before
    kv.put("a", b"2")
    assert kv.index_of("a") > gone
