"""Steering a node over HTTP: drained and called back, labels moved, by those who may and by nobody else."""

import asyncio
import gzip

import pytest

from node.config import NodeConfig
from node.lifecycle import State
from node.repository import Model, Wanted
from node.server import NodeServer
from node.testing import write_model
from registry.model import Health
from registry.testing import ManualClock

ADMIN = {"Authorization": "Bearer steer-me"}
USER = {"Authorization": "Bearer use-me"}


@pytest.fixture
def tokens(tmp_path):
    """Options for a node with one token for each realm."""
    admin, user = tmp_path / "admin", tmp_path / "user"
    admin.write_text("steer-me\n")
    user.write_text("use-me\n")
    return {"admin_token_file": admin, "token_file": user}


@pytest.fixture
async def node(make_node, tokens):
    server = make_node(drain_grace=0.05, admin_token_file=tokens["admin_token_file"])
    await server.start()
    return server


@pytest.fixture
def ask(session):
    """Send a request to a node as its administrator; status, body, headers."""

    async def send(node, method, path, headers=ADMIN, **options):
        async with session.request(method, node.url + path, headers=headers, **options) as reply:
            return reply.status, await reply.json(), reply.headers

    return send


@pytest.fixture
def classify(ask, png):
    async def send(node, headers=None):
        return await ask(node, "POST", "/classify", headers or {}, data=png())

    return send


async def health(directory):
    found = (await directory.lookup("digits", passing_only=False)).instances
    return [each.health for each in found]


class TestDraining:
    GRACE = 1.5

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def node(self, model, runtime, directory, tokens, clock):
        """A ready node whose clock stands still, so that the grace lasts until the test ends it."""
        config = NodeConfig(
            models=(Model(path=model),),
            port=0,
            id="digits-a1b2",
            drain_grace=self.GRACE,
            admin_token_file=tokens["admin_token_file"],
        )
        server = NodeServer(config, clock=clock, open=lambda _: runtime, directory=directory)
        await server.start()
        yield server
        runtime.gate.set()
        await server.stop()

    async def test_it_steps_aside_serves_through_the_grace_then_refuses(self, node, ask, classify, directory, clock):
        status, body, _ = await ask(node, "POST", "/admin/drain", json={"reason": "a new disk"})
        assert (status, body["state"], body["refusing"]) == (200, "draining", False)
        assert await health(directory) == [Health.DRAINING]
        status, body, headers = await ask(node, "GET", "/readyz")
        assert (status, body["reason"], headers["Retry-After"]) == (503, "draining", "0")
        status, _, headers = await classify(node)
        assert (status, headers["Connection"]) == (200, "close")
        await clock.advance(self.GRACE)
        status, body, headers = await classify(node)
        assert (status, body["reason"]) == (503, "draining")
        assert (headers["Retry-After"], headers["Connection"]) == ("0", "close")
        assert (await ask(node, "GET", "/admin/state"))[1]["refusing"] is True
        assert (await ask(node, "GET", "/healthz"))[0] == 200

    async def test_the_reason_is_told_to_the_registry(self, node, ask, directory, monkeypatch):
        reasons = []
        taken_out = directory.maintenance

        async def maintenance(instance_id, on, reason=""):
            reasons.append((on, reason))
            await taken_out(instance_id, on, reason)

        monkeypatch.setattr(directory, "maintenance", maintenance)
        await ask(node, "POST", "/admin/drain", json={"reason": "a new disk"})
        await ask(node, "POST", "/admin/undrain")
        await ask(node, "POST", "/admin/drain")
        assert reasons == [(True, "a new disk"), (False, ""), (True, "drained by an operator")]

    async def test_its_state_tells_what_is_still_inside(self, node, ask, classify, runtime, until, clock):
        runtime.gate.clear()
        inside = [asyncio.ensure_future(classify(node)) for _ in range(3)]
        await until(lambda: node.admission.requests == 3)
        await ask(node, "POST", "/admin/drain")
        await clock.advance(self.GRACE)
        _, body, _ = await ask(node, "GET", "/admin/state")
        assert body["held"]["requests"] == 3
        assert body["models"]["digits"]["versions"]["1"]["users"] == 3
        runtime.gate.set()
        assert [status for status, _, _ in await asyncio.gather(*inside)] == [200] * 3
        _, body, _ = await ask(node, "GET", "/admin/state")
        assert body["held"]["requests"] == 0
        assert (body["node"], body["service"]) == ("digits-a1b2", "digits")
        assert body["models"]["digits"]["versions"]["1"]["condition"] == "READY"

    async def test_draining_twice_is_fine(self, node, ask, directory, clock):
        for _ in range(2):
            assert (await ask(node, "POST", "/admin/drain"))[1]["state"] == "draining"
        await clock.advance(self.GRACE)
        assert node.intake.refusing
        assert (await ask(node, "POST", "/admin/drain"))[0] == 200
        assert await health(directory) == [Health.DRAINING]

    async def test_called_back_it_serves_is_ready_and_found(self, node, ask, classify, directory, clock):
        await ask(node, "POST", "/admin/drain")
        await clock.advance(self.GRACE)
        assert node.intake.refusing
        status, body, _ = await ask(node, "POST", "/admin/undrain")
        assert (status, body["state"], body["refusing"]) == (200, "ready", False)
        assert await health(directory) == [Health.PASSING]
        assert (await ask(node, "GET", "/readyz"))[0] == 200
        status, _, headers = await classify(node)
        assert (status, headers.get("Connection")) == (200, None)

    async def test_calling_back_within_the_grace_refuses_nobody(self, node, ask, classify, clock):
        await ask(node, "POST", "/admin/drain")
        await ask(node, "POST", "/admin/undrain")
        await clock.advance(60)
        assert (await classify(node))[0] == 200

    async def test_drained_again_it_has_the_whole_grace_again(self, node, ask, classify, clock):
        await ask(node, "POST", "/admin/drain")
        await clock.advance(self.GRACE - 0.1)
        await ask(node, "POST", "/admin/undrain")
        await ask(node, "POST", "/admin/drain")
        await clock.advance(self.GRACE - 0.1)  # the first grace would be over
        assert (await classify(node))[0] == 200
        await clock.advance(0.2)
        assert (await classify(node))[0] == 503

    async def test_calling_back_what_was_not_drained_changes_nothing(self, node, ask, classify, directory):
        status, body, _ = await ask(node, "POST", "/admin/undrain")
        assert (status, body["state"]) == (200, "ready")
        assert await health(directory) == [Health.PASSING]
        assert (await classify(node))[0] == 200

    async def test_a_node_that_is_ending_cannot_be_called_back(self, node, ask, directory, until, clock):
        draining = asyncio.ensure_future(node.drain())
        await until(lambda: node.lifecycle.leaving)
        status, body, _ = await ask(node, "POST", "/admin/undrain")
        assert (status, body["reason"]) == (503, "draining")
        assert node.lifecycle.state is State.DRAINING
        assert await health(directory) == [Health.DRAINING]
        await until(lambda: clock.sleepers > 1)  # the registrar's, and the grace
        await clock.advance(self.GRACE)
        await draining
        assert directory.registrations == {}

    async def test_a_drained_node_ends_as_any_other(self, node, ask, directory, until, clock):
        await ask(node, "POST", "/admin/drain")
        await clock.advance(self.GRACE)
        assert node.intake.refusing
        draining = asyncio.ensure_future(node.drain())
        await until(lambda: clock.sleepers > 1)
        await clock.advance(self.GRACE)
        await draining
        assert node.lifecycle.state is State.STOPPED
        assert directory.registrations == {}

    async def test_a_node_that_loads_is_not_drained_behind_its_back(self, make_node, tokens, ask, runtime, until):
        runtime.gate.clear()
        node = make_node(admin_token_file=tokens["admin_token_file"])
        starting = asyncio.ensure_future(node.start())
        await until(lambda: runtime.batches)
        status, body, _ = await ask(node, "POST", "/admin/drain")
        assert (status, body["reason"]) == (503, "overloaded")
        assert "still warming; drain it when it serves" in body["error"]
        status, body, _ = await ask(node, "POST", "/admin/undrain")
        assert (status, body["state"]) == (200, "warming")
        runtime.gate.set()
        await starting
        assert node.lifecycle.ready

    async def test_a_registry_that_is_away_does_not_keep_it_from_draining(self, node, ask, directory, clock):
        directory.fail()
        assert (await ask(node, "POST", "/admin/drain"))[1]["state"] == "draining"
        await clock.advance(self.GRACE)
        assert node.intake.refusing
        directory.heal()
        await clock.advance(10)
        assert await health(directory) == [Health.DRAINING]
        assert (await ask(node, "POST", "/admin/undrain"))[1]["state"] == "ready"
        assert await health(directory) == [Health.PASSING]

    async def test_steering_is_no_traffic(self, node, ask):
        await ask(node, "POST", "/admin/drain")
        await ask(node, "GET", "/admin/state")
        assert "node_requests_total{" not in node.metrics.text().decode()


class TestLabels:
    @pytest.fixture
    async def node(self, make_node, tokens, model):
        write_model(model, version=2)
        models = (Model(path=model, wanted=Wanted(latest=2)),)
        server = make_node(models=models, admin_token_file=tokens["admin_token_file"])
        await server.start()
        return server

    async def test_a_label_is_moved_and_taken_away(self, node, ask):
        path = "/admin/models/digits/labels/stable"
        status, body, _ = await ask(node, "PUT", path, json={"version": "1"})
        assert (status, body["models"]["digits"]["labels"]) == (200, {"stable": "1"})
        assert node.repository.find(label="stable").version == "1"
        await ask(node, "PUT", path, json={"version": "2"})
        assert node.repository.find(label="stable").version == "2"
        status, body, _ = await ask(node, "DELETE", path)
        assert (status, body["models"]["digits"]["labels"]) == (200, {})
        assert (await ask(node, "DELETE", path))[0] == 200

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("digits/labels/stable", {"version": "7"}, 404),
            ("cats/labels/stable", {"version": "1"}, 404),
            ("digits/labels/stable", {}, 400),
            ("digits/labels/stable", {"version": ""}, 400),
            ("digits/labels/stable", {"version": 2}, 400),
            ("digits/labels/stable", {"version": "1", "force": True}, 400),
            ("digits/labels/sta%20ble", {"version": "1"}, 400),
            ("digits/labels/st%C3%A4ble", {"version": "1"}, 400),
            ("digits/labels/--", {"version": "1"}, 400),
            ("digits/labels/a%2Fb", {"version": "1"}, 400),
        ],
    )
    async def test_a_label_that_makes_no_sense_changes_nothing(self, node, ask, path, body, status):
        got, answer, _ = await ask(node, "PUT", f"/admin/models/{path}", json=body)
        assert got == status
        assert answer["error"]
        assert node.repository.entry().labels == {}


STEERING = [
    ("GET", "/admin/state"),
    ("POST", "/admin/drain"),
    ("POST", "/admin/undrain"),
    ("PUT", "/admin/models/digits/labels/stable"),
    ("DELETE", "/admin/models/digits/labels/stable"),
    ("POST", "/v2/repository/models/digits/unload"),
    ("POST", "/v2/repository/models/digits/load"),
]


class TestWhoMay:
    @pytest.mark.parametrize(("method", "path"), STEERING)
    async def test_without_an_admin_token_file_nobody_may_steer(self, make_node, ask, method, path):
        node = make_node()
        await node.start()
        status, body, _ = await ask(node, method, path, json={"version": "1"})
        assert (status, body["reason"]) == (403, "forbidden")
        assert "--admin-token-file" in body["error"]
        assert node.lifecycle.ready
        assert node.repository.entry().labels == {}

    @pytest.mark.parametrize(("method", "path"), STEERING)
    async def test_an_admin_token_it_takes(self, make_node, ask, tokens, method, path):
        node = make_node(**tokens)
        await node.start()
        for headers, expected in (({}, 401), ({"Authorization": "Bearer wrong"}, 401), (USER, 403)):
            status, _, answered = await ask(node, method, path, headers, json={"version": "1"})
            assert status == expected
            assert ("WWW-Authenticate" in answered) is (expected == 401)
        assert node.lifecycle.ready
        assert node.repository.find().version == "1"
        assert (await ask(node, method, path, json={"version": "1"} if method == "PUT" else None))[0] == 200

    async def test_who_may_not_is_refused_before_the_body_is_looked_at(self, make_node, ask, tokens):
        node = make_node(**tokens)
        await node.start()
        assert (await ask(node, "POST", "/admin/drain", USER, data=b"{" * 100_000))[0] == 403

    async def test_a_replaced_token_counts_at_once(self, make_node, ask, tokens):
        node = make_node(**tokens)
        await node.start()
        tokens["admin_token_file"].write_text("other\n")
        assert (await ask(node, "GET", "/admin/state"))[0] == 401
        assert (await ask(node, "GET", "/admin/state", {"Authorization": "Bearer other"}))[0] == 200

    async def test_no_token_is_in_any_answer_or_log(self, make_node, ask, tokens, caplog):
        caplog.set_level("DEBUG")
        node = make_node(**tokens)
        await node.start()
        for headers in (ADMIN, USER, {"Authorization": "Bearer wrong-secret"}):
            _, body, _ = await ask(node, "GET", "/admin/state", headers)
            assert not any(word in str(body) for word in ("steer-me", "use-me", "wrong-secret"))
        assert not any(word in caplog.text for word in ("steer-me", "use-me", "wrong-secret"))


class TestHostileBodies:
    @pytest.mark.parametrize(
        ("data", "headers", "status"),
        [
            (b"not json", {}, 400),
            (b"[]", {}, 400),
            (b'{"reason": 7}', {}, 400),
            (b'{"reason": "x", "extra": 1}', {}, 400),
            (b"\xff\xfe", {}, 400),
            (b'{"reason": ' + b"[" * 60_000, {}, 400),
            (b'{"reason": "' + b"x" * 70_000 + b'"}', {}, 413),
            (gzip.compress(b'{"reason": "' + b"x" * 1_000_000 + b'"}'), {"Content-Encoding": "gzip"}, 413),
            (b"no gzip", {"Content-Encoding": "gzip"}, 400),
            (b"{}", {"Content-Encoding": "br"}, 415),
        ],
    )
    async def test_they_are_refused_and_nothing_happens(self, node, ask, caplog, data, headers, status):
        got, body, _ = await ask(node, "POST", "/admin/drain", ADMIN | headers, data=data)
        assert got == status
        assert body["error"]
        assert "\n" not in body["error"]
        assert node.lifecycle.ready
        assert not [record for record in caplog.records if record.exc_info]

    async def test_a_body_that_never_comes_is_given_up(self, node, ask, monkeypatch):
        monkeypatch.setattr("node.protocols.orders.TIME", 0.05)

        async def slow():
            yield b"{"
            await asyncio.sleep(30)

        status, _, headers = await ask(node, "POST", "/admin/drain", data=slow())
        assert (status, headers["Connection"]) == (408, "close")
        assert node.lifecycle.ready

    async def test_a_packed_body_and_none_at_all_are_read(self, node, ask):
        packed = gzip.compress(b'{"reason": "disk"}')
        assert (await ask(node, "POST", "/admin/drain", ADMIN | {"Content-Encoding": "gzip"}, data=packed))[0] == 200
        assert (await ask(node, "POST", "/admin/undrain", data=b"ignored"))[0] == 200

    async def test_a_full_node_can_be_steered(self, node, ask):
        node.admission._max_requests = node.admission._max_bytes = 0
        assert (await ask(node, "POST", "/admin/drain", json={"reason": "too full"}))[0] == 200
        assert (await ask(node, "GET", "/admin/state"))[0] == 200
