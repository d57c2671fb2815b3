"""Models and versions of one node: what is loaded, what replaces what, and what is refused."""

import asyncio
import gc
import shutil
import weakref

import pytest

from node.admission import Admission
from node.compute import Compute
from node.decoding import Decoders
from node.errors import MissingExtra, ModelError, NotFound, Overloaded
from node.metrics import Metrics
from node.models import versions
from node.repository import Condition, Model, Repository, Wanted
from node.served import Served, Shared
from node.testing import write_model
from registry.testing import ManualClock
from tests.node.versioned import Opener, add_version


@pytest.fixture
def opener():
    fake = Opener()
    yield fake
    fake.gate.set()


@pytest.fixture
async def shared():
    clock = ManualClock()
    compute, decoders = Compute(clock), Decoders(clock, threads=1)
    yield Shared(compute, decoders, Admission(limit=2.0), Metrics(), clock, 2)
    await compute.close()
    decoders.close()


@pytest.fixture
async def make(opener, shared):
    """Make repositories; ``changes`` counts the calls of ``on_change``."""
    made = []

    def repository(*models):
        repository = Repository(
            models,
            open=opener,
            make=lambda source, runtime: Served(source, runtime, shared),
            metrics=shared.metrics,
            clock=shared.clock,
            on_change=lambda: repository.changes.append(serving(repository)),
        )
        repository.changes = []
        made.append(repository)
        return repository

    yield repository
    opener.gate.set()
    for each in made:
        await each.close()


@pytest.fixture
def digits(tmp_path):
    """A model folder with versions 1, 2 and 10."""
    folder = tmp_path / "digits"
    for number in (1, 2, 10):
        write_model(folder, version=number)
    return folder


def serving(repository):
    return [served.version for served in repository.serving()]


def conditions(repository, name=""):
    return {number: str(version.condition) for number, version in repository.entry(name).versions.items()}


def text(shared):
    return shared.metrics.text().decode()


class TestWhichVersions:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Wanted(), ["10"]),
            (Wanted(latest=2), ["2", "10"]),
            (Wanted(latest=0), ["1", "2", "10"]),
            (Wanted(only=(1, 10)), ["1", "10"]),
            (Wanted(only=(2, 77)), ["2"]),
        ],
    )
    async def test_those_that_were_asked_for_serve(self, make, digits, wanted, expected):
        repository = make(Model(path=digits, wanted=wanted))
        await repository.load()
        assert serving(repository) == expected
        assert repository.find().version == expected[-1]

    async def test_the_newest_is_loaded_first_and_answers_while_the_others_come(self, make, digits, opener):
        repository = make(Model(path=digits, wanted=Wanted(latest=0)))
        await repository.load()
        assert [version for _, version in opener.asked] == ["10", "2", "1"]
        assert repository.changes == [["10"], ["2", "10"], ["1", "2", "10"]]

    async def test_versions_that_are_not_there_are_a_refusal_with_those_that_are(self, make, digits):
        with pytest.raises(ModelError, match="has versions 1, 2, 10, but not 5, 7"):
            await make(Model(path=digits, wanted=Wanted(only=(5, 7)))).load()

    async def test_only_those_that_are_known_to_be_whole_are_looked_at(self, make, digits, opener):
        repository = make(Model(path=digits))
        await repository.load(among={1, 2})
        assert serving(repository) == ["2"]
        assert opener.asked == [("digits", "2")]
        with pytest.raises(ModelError, match="whole"):
            await repository.load(among={5})
        assert serving(repository) == ["2"]

    async def test_a_model_without_version_folders_is_one_version(self, make, digits, tmp_path):
        shutil.copytree(digits / "2", tmp_path / "bare")
        for path in (digits / "2", tmp_path / "bare"):
            repository = make(Model(path=path, wanted=Wanted(latest=0)))
            await repository.load()
            assert serving(repository) == ["2"]

    async def test_a_version_copied_by_hand_goes_by_its_folders_number(self, make, digits):
        shutil.copytree(digits / "10", digits / "11")
        repository = make(Model(path=digits))
        await repository.load()
        assert serving(repository) == ["11"]

    async def test_what_serves_already_is_not_loaded_again(self, make, digits, opener):
        repository = make(Model(path=digits))
        await repository.load()
        await repository.load()
        assert opener.asked == [("digits", "10")]
        assert repository.changes == [["10"]]


class TestNames:
    async def test_two_models_of_one_name_are_told_how_to_differ(self, make, digits, tmp_path):
        other = write_model(tmp_path / "copy" / "digits")
        with pytest.raises(ModelError, match=rf"two models are called digits.*--model OTHER={other}"):
            make(Model(path=digits), Model(path=other))
        repository = make(Model(path=digits), Model(path=other, name="old"))
        for name in repository.names:
            await repository.load(name)
        assert {served.name for served in repository.serving()} == {"digits", "old"}
        assert repository.find("old").version == "1"
        assert repository.first.version == repository.find().version == "10"

    async def test_no_model_at_all_is_known_before_anything_is_loaded(self, make, tmp_path, opener):
        with pytest.raises(ModelError, match="twostep train"):
            make(Model(path=tmp_path / "nowhere"))
        assert opener.asked == []

    async def test_an_unknown_name_is_told_the_known_ones(self, make, digits, tmp_path):
        repository = make(Model(path=digits), Model(path=digits, name="other"))
        for ask in (repository.find, repository.entry):
            with pytest.raises(NotFound, match="no model 'cats' here; this node has digits, other"):
                ask("cats")
        with pytest.raises(NotFound):
            await repository.load("cats")
        with pytest.raises(NotFound):
            await repository.unload("cats")
        with pytest.raises(NotFound):
            repository.label("cats", "stable", "1")

    async def test_a_long_name_is_not_repeated_at_length(self, make, digits):
        with pytest.raises(NotFound) as refusal:
            make(Model(path=digits)).find("x" * 5000)
        assert len(str(refusal.value)) < 300

    async def test_an_unknown_version_is_told_the_serving_ones(self, make, digits):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        await repository.load()
        for version in ("1", "99", "x", "02", "２"):
            with pytest.raises(NotFound, match=f"digits has no version '{version}' here; it has 2, 10"):
                repository.find("digits", version=version)


class TestBeforeItServes:
    async def test_a_model_nobody_has_loaded_is_not_found(self, make, digits):
        repository = make(Model(path=digits))
        assert repository.first is None
        with pytest.raises(NotFound, match="digits is not loaded here"):
            repository.find()

    async def test_a_model_that_is_loading_is_worth_waiting_for(self, make, digits, opener, until):
        repository = make(Model(path=digits))
        opener.gate.clear()
        loading = asyncio.ensure_future(repository.load())
        await until(lambda: opener.asked)
        assert conditions(repository) == {"10": "LOADING"}
        for version in ("", "10"):
            with pytest.raises(Overloaded, match="still loading"):
                repository.find(version=version)
        opener.gate.set()
        await loading
        assert conditions(repository) == {"10": "READY"}

    async def test_one_that_is_coming_is_told_of_rather_than_one_that_failed(self, make, digits, opener, until):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        opener.refuse("10")
        gate = opener.hold("2")
        loading = asyncio.ensure_future(repository.load())
        await until(lambda: len(opener.asked) == 2)
        assert conditions(repository) == {"10": "UNAVAILABLE", "2": "LOADING"}
        with pytest.raises(Overloaded):
            repository.find()
        gate.set()
        await loading

    async def test_loads_are_one_at_a_time(self, make, digits, opener, until):
        repository = make(*(Model(path=digits, name=name, wanted=Wanted(latest=0)) for name in "abc"))
        await asyncio.gather(*(repository.load(name) for name in "abc"))
        assert opener.most_at_once == 1
        assert len(opener.asked) == 9

    async def test_two_loads_of_one_model_load_it_once(self, make, digits, opener):
        repository = make(Model(path=digits))
        await asyncio.gather(repository.load(), repository.load())
        assert len(opener.asked) == 1


class TestRefusal:
    async def test_a_broken_newer_version_is_refused_and_the_old_one_serves_on(self, make, digits, opener, caplog):
        repository = make(Model(path=digits))
        await repository.load()
        add_version(digits, 11)
        opener.refuse("11")
        with pytest.raises(ModelError, match="version 11 is broken"):
            await repository.load()
        assert repository.find().version == "10"
        assert opener.only("10").closes == 0
        assert conditions(repository) == {"10": "READY", "11": "UNAVAILABLE"}
        snapshot = repository.snapshot()["digits"]["versions"]
        assert snapshot["11"] == {"condition": "UNAVAILABLE", "reason": "version 11 is broken"}
        assert snapshot["10"]["condition"] == "READY"
        with pytest.raises(NotFound, match="version 11 is not served here: version 11 is broken"):
            repository.find(version="11")
        assert "digits version 11 is not served: version 11 is broken" in caplog.text

    async def test_the_refusal_is_forgotten_when_the_version_has_been_mended(self, make, digits, opener):
        repository = make(Model(path=digits))
        opener.refuse("10")
        with pytest.raises(ModelError):
            await repository.load()
        with pytest.raises(NotFound, match="10 is broken"):
            repository.find()
        opener.broken.clear()
        await repository.load()
        assert repository.find().version == "10"
        assert repository.snapshot()["digits"]["versions"]["10"].get("reason") is None

    async def test_a_broken_one_among_several_does_not_keep_the_others_from_serving(self, make, digits, opener):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        opener.refuse("10")
        await repository.load()
        assert serving(repository) == ["2"]

    async def test_nothing_is_let_go_of_while_one_that_was_to_replace_it_is_broken(self, make, digits, opener):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        await repository.load()
        add_version(digits, 11)
        opener.refuse("11")
        await repository.load()
        assert serving(repository) == ["2", "10"]

    async def test_bytes_that_differ_from_the_manifest_are_refused(self, make, digits, opener):
        (digits / "10" / "model.keras").write_bytes(b"half of it")
        with pytest.raises(ModelError, match="sha256"):
            await make(Model(path=digits)).load()
        assert opener.asked == []

    async def test_one_that_fails_when_warmed_is_closed_again(self, make, digits, opener, shared):
        repository = make(Model(path=digits, labels=None))
        manifest = digits / "10" / "model.json"
        manifest.write_text(manifest.read_text().replace('"9"', '"9","ten"'))
        with pytest.raises(ModelError, match="11 labels"):
            await repository.load()
        assert opener.only("10").closes == 1
        assert conditions(repository) == {"10": "UNAVAILABLE"}

    async def test_one_that_does_not_go_with_its_manifest_is_closed_again(self, make, digits, opener):
        manifest = digits / "10" / "model.json"
        manifest.write_text(manifest.read_text().replace('"height":8', '"height":9'))
        with pytest.raises(ModelError, match="prepares 9 x 8 x 1"):
            await make(Model(path=digits)).load()
        assert opener.only("10").closes == 1

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (MemoryError("no room\nfor it"), r"model\.keras cannot be loaded: MemoryError no room$"),
            (FileNotFoundError(2, "gone", "weights"), "FileNotFoundError .*gone"),
            (ZeroDivisionError(), r"cannot be loaded: ZeroDivisionError$"),
            (SystemExit(3), r"cannot be loaded: SystemExit 3$"),
        ],
    )
    async def test_whatever_a_runtime_raises_is_a_refusal_of_one_line(self, make, digits, opener, error, expected):
        repository = make(Model(path=digits))
        opener.refuse("10", error)
        with pytest.raises(ModelError, match=expected) as refusal:
            await repository.load()
        assert "\n" not in str(refusal.value)
        assert conditions(repository) == {"10": "UNAVAILABLE"}

    async def test_an_extra_that_is_missing_says_what_to_install(self, make, digits, opener):
        opener.refuse("10", MissingExtra("onnxruntime", "onnx"))
        with pytest.raises(MissingExtra, match=r"pip install 'twostep\[onnx\]'"):
            await make(Model(path=digits)).load()

    async def test_a_folder_that_has_gone_is_a_refusal_and_what_serves_goes_on(self, make, digits, monkeypatch):
        repository = make(Model(path=digits))
        await repository.load()
        shutil.rmtree(digits)
        with pytest.raises(ModelError):
            await repository.load()

        def away(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("node.repository.versions", away)
        with pytest.raises(ModelError, match=r"cannot be read.*Permission denied"):
            await repository.load()
        assert serving(repository) == ["10"]

    async def test_failed_loads_are_counted(self, make, digits, opener, shared):
        opener.refuse("10")
        with pytest.raises(ModelError):
            await make(Model(path=digits)).load()
        assert 'node_model_load_failures_total{model="digits"} 1.0' in text(shared)

    async def test_a_load_that_is_broken_off_leaves_no_version_that_is_loading_for_ever(
        self, make, digits, opener, until
    ):
        repository = make(Model(path=digits))
        opener.gate.clear()
        loading = asyncio.ensure_future(repository.load())
        await until(lambda: opener.asked)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert conditions(repository) == {"10": "UNAVAILABLE"}
        opener.gate.set()
        await repository.load()
        assert serving(repository) == ["10"]


class TestSwap:
    async def test_the_old_version_gets_no_more_requests_and_is_freed_after_its_last(
        self, make, digits, opener, shared, until
    ):
        repository = make(Model(path=digits))
        await repository.load()
        with repository.use() as old:
            add_version(digits, 11)
            await repository.load()
            assert repository.find().version == "11"
            assert conditions(repository) == {"10": "UNLOADING", "11": "READY"}
            with pytest.raises(NotFound, match="no version '10' here; it has 11"):
                repository.find(version="10")
            assert serving(repository) == ["11"]
            await asyncio.sleep(0.02)
            assert opener.only("10").closes == 0
            assert old.version == "10"
        await until(lambda: opener.only("10").closes == 1)
        await until(lambda: conditions(repository) == {"11": "READY"})
        assert repository.changes == [["10"], ["10", "11"], ["11"]]

    async def test_the_freed_version_is_garbage(self, make, digits, opener, until):
        repository = make(Model(path=digits))
        await repository.load()
        ghost = weakref.ref(repository.find())
        add_version(digits, 11)
        await repository.load()
        await until(lambda: conditions(repository) == {"11": "READY"})
        await until(lambda: not repository._leaving)
        gc.collect()
        assert ghost() is None

    async def test_metrics_name_the_versions_that_serve(self, make, digits, shared, until):
        repository = make(Model(path=digits))
        await repository.load()
        info = 'node_model_info{{model="digits",runtime="scripted",version="{}"}} 1.0'
        assert info.format(10) in text(shared)
        add_version(digits, 11)
        await repository.load()
        await until(lambda: not repository._leaving)
        assert info.format(11) in text(shared)
        assert 'version="10"' not in text(shared)

    async def test_a_version_that_comes_back_while_it_still_leaves_is_served_and_counted(
        self, make, digits, opener, shared, until
    ):
        repository = make(Model(path=digits))
        await repository.load()
        with repository.use():
            unloading = asyncio.ensure_future(repository.unload("digits"))
            await until(lambda: repository.first is None)
            await repository.load()
            assert serving(repository) == ["10"]
        await unloading
        await until(lambda: not repository._leaving)
        assert serving(repository) == ["10"]
        assert [runtime.closes for runtime in opener.opened["10"]] == [1, 0]
        assert 'node_model_info{model="digits",runtime="scripted",version="10"} 1.0' in text(shared)

    async def test_a_model_that_fails_to_close_is_gone_all_the_same(self, make, digits, opener, until, caplog):
        repository = make(Model(path=digits))
        await repository.load()

        def stuck():
            raise RuntimeError("still open")

        opener.only("10").close = stuck
        add_version(digits, 11)
        await repository.load()
        await until(lambda: conditions(repository) == {"11": "READY"})
        assert "digits version 10 did not close" in caplog.text


class TestUnload:
    async def test_it_returns_when_the_last_user_has_let_go(self, make, digits, opener, until):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        await repository.load()
        with repository.use(version="2"):
            unloading = asyncio.ensure_future(repository.unload("digits"))
            await until(lambda: opener.only("10").closes == 1)
            assert not unloading.done()
            with pytest.raises(NotFound):
                repository.find()
        await unloading
        assert opener.only("2").closes == 1
        assert conditions(repository) == {}
        with pytest.raises(NotFound, match="digits is not loaded here"):
            repository.find()

    async def test_it_waits_for_a_version_that_is_leaving_already(self, make, digits, opener, until):
        repository = make(Model(path=digits))
        await repository.load()
        with repository.use():
            add_version(digits, 11)
            await repository.load()
            unloading = asyncio.ensure_future(repository.unload("digits"))
            await until(lambda: opener.only("11").closes == 1)
            assert conditions(repository) == {"10": "UNLOADING"}
            assert not unloading.done()
        await unloading
        assert opener.only("10").closes == 1

    async def test_an_unloaded_model_can_be_loaded_again(self, make, digits, opener):
        repository = make(Model(path=digits))
        await repository.load()
        await repository.unload("digits")
        await repository.load()
        assert serving(repository) == ["10"]
        assert len(opener.opened["10"]) == 2

    async def test_unloading_what_is_not_loaded_changes_nothing(self, make, digits):
        repository = make(Model(path=digits))
        await repository.unload("digits")
        assert repository.changes == []

    async def test_a_refused_version_is_forgotten_with_the_model(self, make, digits, opener):
        repository = make(Model(path=digits))
        opener.refuse("10")
        with pytest.raises(ModelError):
            await repository.load()
        await repository.unload("digits")
        assert conditions(repository) == {}

    async def test_other_models_go_on(self, make, digits):
        repository = make(Model(path=digits), Model(path=digits, name="other"))
        for name in repository.names:
            await repository.load(name)
        await repository.unload("digits")
        assert [served.name for served in repository.serving()] == ["other"]

    async def test_whoever_asks_for_it_and_goes_away_does_not_break_off_what_others_use(
        self, make, digits, opener, until
    ):
        repository = make(Model(path=digits))
        await repository.load()
        with repository.use():
            unloading = asyncio.ensure_future(repository.unload("digits"))
            await until(lambda: repository.first is None)
            unloading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await unloading
            await asyncio.sleep(0.02)
            assert opener.only("10").closes == 0
        await until(lambda: opener.only("10").closes == 1)


class TestLabels:
    async def test_a_label_finds_its_version(self, make, digits):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        await repository.load()
        repository.label("digits", "stable", "2")
        repository.label("", "canary", "10")
        assert repository.find("digits", label="stable").version == "2"
        assert repository.find(label="canary").version == "10"
        assert repository.snapshot()["digits"]["labels"] == {"stable": "2", "canary": "10"}
        repository.label("digits", "stable", "10")
        assert repository.find(label="stable").version == "10"

    @pytest.mark.parametrize("version", ["1", "99", "x"])
    async def test_it_points_only_at_a_loaded_version(self, make, digits, version):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        await repository.load()
        repository.label("digits", "stable", "2")
        with pytest.raises(NotFound, match=f"no version '{version}' here"):
            repository.label("digits", "stable", version)
        assert repository.find(label="stable").version == "2"

    async def test_an_unknown_label_is_told_the_known_ones(self, make, digits):
        repository = make(Model(path=digits))
        await repository.load()
        with pytest.raises(NotFound, match="digits has no label 'x'; it has none"):
            repository.find(label="x")
        repository.label("digits", "stable", "10")
        with pytest.raises(NotFound, match="it has stable"):
            repository.find(label="x")

    async def test_it_goes_with_its_version(self, make, digits):
        repository = make(Model(path=digits))
        await repository.load()
        repository.label("digits", "stable", "10")
        add_version(digits, 11)
        await repository.load()
        assert repository.snapshot()["digits"]["labels"] == {}
        with pytest.raises(NotFound):
            repository.find(label="stable")

    async def test_one_of_a_version_that_stays_stays(self, make, digits):
        repository = make(Model(path=digits, wanted=Wanted(latest=2)))
        await repository.load()
        repository.label("digits", "old", "2")
        repository.label("digits", "new", "10")
        add_version(digits, 11)
        await repository.load()
        assert repository.snapshot()["digits"]["labels"] == {"new": "10"}

    async def test_it_can_be_taken_away_also_twice(self, make, digits):
        repository = make(Model(path=digits))
        await repository.load()
        repository.label("digits", "stable", "10")
        repository.label("digits", "stable", "")
        repository.label("digits", "stable", "")
        assert repository.snapshot()["digits"]["labels"] == {}


class TestClosing:
    async def test_every_runtime_is_closed_once_those_that_are_leaving_too(self, make, digits, opener):
        repository = make(Model(path=digits))
        await repository.load()
        with repository.use():
            add_version(digits, 11)
            await repository.load()
            async with asyncio.timeout(5):
                await repository.close()
            assert [opener.only(version).closes for version in ("10", "11")] == [1, 1]
        await repository.close()
        assert [opener.only(version).closes for version in ("10", "11")] == [1, 1]

    async def test_nothing_serves_after_it(self, make, digits):
        repository = make(Model(path=digits))
        await repository.load()
        await repository.close()
        assert repository.serving() == []
        with pytest.raises(NotFound):
            repository.find()


async def test_an_entry_lists_its_versions_with_their_conditions(make, digits, opener):
    repository = make(Model(path=digits, wanted=Wanted(latest=0)))
    opener.refuse("2")
    await repository.load()
    (entry,) = repository.entries()
    assert entry.name == "digits"
    assert {number: version.condition for number, version in entry.versions.items()} == {
        "1": Condition.READY,
        "2": Condition.UNAVAILABLE,
        "10": Condition.READY,
    }
    assert [version.number for version in entry.ready()] == ["1", "10"]
    assert versions(digits) == [1, 2, 10]
