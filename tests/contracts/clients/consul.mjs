// The npm package `consul`, used as its README shows: node consul.mjs HOST PORT SERVICE
import assert from "node:assert/strict";
import { once } from "node:events";
import Consul from "consul";

const [host, port, name] = process.argv.slice(2);
const consul = new Consul({ host, port: Number(port) });
const id = `${name}-1`;

// An agent takes its own time to tell the catalog.
async function until(what, read, holds) {
  for (let attempt = 0; attempt < 400; attempt += 1) {
    const value = await read();
    if (holds(value)) return value;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`not within 10 s: ${what}`);
}
const passing = () => consul.health.service({ service: name, passing: true });

assert.equal(typeof (await consul.agent.self()).Config.NodeName, "string");
assert.equal((await consul.agent.members()).length, 1);
assert.match(await consul.status.leader(), /:\d+$/);
assert.equal((await consul.status.peers()).length, 1);

// What a watch saw, and a way to wait for the next sight that holds.
const seen = [];
const watch = consul.watch({
  method: consul.health.service,
  options: { service: name, passing: true, wait: "10s" },
  backoffFactor: 100,
});
watch.on("change", (entries) => seen.push(entries.map((entry) => entry.Service.ID)));
watch.on("error", (error) => console.error(error));
const watched = (...ids) => until(`a watch that sees [${ids}]`, () => seen.at(-1), (last) => last && String(last) === String(ids));
await watched();

await consul.agent.service.register({
  name, id, address: "10.0.0.1", port: 9001, tags: ["a", "b"], meta: { zone: "z" },
  checks: [{ name: "beat", ttl: "60s", status: "passing" }],
});
assert.equal((await consul.agent.service.list())[id].Port, 9001);
const [entry] = await until("health of the service", passing, (found) => found.length === 1);
assert.deepEqual([entry.Service.Address, entry.Service.Tags, entry.Service.Meta], ["10.0.0.1", ["a", "b"], { zone: "z" }]);
await watched(id);

for (const [verb, status] of [["warn", "warning"], ["fail", "critical"], ["pass", "passing"]]) {
  await consul.agent.check[verb]({ id: `service:${id}`, note: `note of ${verb}` });
  const check = (await consul.agent.check.list())[`service:${id}`];
  assert.deepEqual([check.Status, check.Output], [status, `note of ${verb}`]);
  await watched(...(status === "passing" ? [id] : []));
}

assert.deepEqual((await consul.health.checks(name)).map((check) => check.CheckID), [`service:${id}`]);
assert.ok((await consul.health.state("passing")).some((check) => check.CheckID === `service:${id}`));
assert.ok((await consul.health.node(entry.Node.Node)).some((check) => check.CheckID === `service:${id}`));
assert.deepEqual((await consul.catalog.service.list())[name].sort(), ["a", "b"]);
assert.deepEqual((await consul.catalog.service.nodes(name)).map((each) => each.ServiceID), [id]);
assert.deepEqual((await consul.catalog.node.list()).map((each) => each.Node), [entry.Node.Node]);
assert.ok(id in (await consul.catalog.node.services(entry.Node.Node)).Services);
assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
const filtered = (filter) => consul.health.service({ service: name, filter });
assert.equal((await filtered("Service.Meta.zone == z and Checks.Status == passing")).length, 1);
assert.equal((await filtered('"c" in Service.Tags')).length, 0);

await consul.agent.service.maintenance({ id, enable: true, reason: "by hand" });
await watched();
await consul.agent.service.maintenance({ id, enable: false });
await watched(id);
await consul.agent.maintenance({ enable: true, reason: "the whole machine" });
await watched();
await consul.agent.maintenance({ enable: false });
await watched(id);

await consul.agent.check.register({ name: `${name}-tcp`, serviceid: id, tcp: `${host}:${port}`, interval: "1s", timeout: "1s" });
await until("a check of a port that answers", consul.agent.check.list.bind(consul.agent.check), (checks) => checks[`${name}-tcp`].Status === "passing");
await consul.agent.check.deregister(`${name}-tcp`);

assert.equal(await consul.kv.set(`${name}/a`, "text"), true);
assert.equal(await consul.kv.set({ key: `${name}/b/c`, value: "", flags: 3 }), true);
assert.equal((await consul.kv.get(`${name}/a`)).Value, "text");
assert.equal((await consul.kv.get(`${name}/b/c`)).Flags, 3);
assert.equal(await consul.kv.get(`${name}/none`), undefined);
assert.deepEqual(await consul.kv.keys(`${name}/`), [`${name}/a`, `${name}/b/c`]);
assert.deepEqual(await consul.kv.keys({ key: `${name}/`, separator: "/" }), [`${name}/a`, `${name}/b/`]);
assert.equal((await consul.kv.get({ key: name, recurse: true })).length, 2);
assert.notEqual(await consul.kv.set({ key: `${name}/a`, value: "never", cas: "1" }), true);
const key = consul.watch({ method: consul.kv.get, options: { key: `${name}/a`, wait: "10s" } });
assert.equal((await once(key, "change"))[0].Value, "text");
const changed = once(key, "change");
await consul.kv.set(`${name}/a`, "changed");
assert.equal((await changed)[0].Value, "changed");
key.end();
await consul.kv.del({ key: name, recurse: true });
assert.equal(await consul.kv.get(`${name}/a`), undefined);

await consul.agent.service.deregister(id);
await watched();
watch.end();
await assert.rejects(consul.agent.check.pass("none"), /CheckID|Unknown check/);
console.log("done");
