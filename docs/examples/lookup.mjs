#!/usr/bin/env node
// A client of the two-step protocol (docs/protocol.md) in plain Node.js 20, without packages: look up, follow, send.
// It is meant to be read and ported; each part says which paragraph of the protocol it is.

import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'

const HEALTH = ['passing', 'warning', 'critical', 'draining']
const SILENCE = 40_000 // ms without a line: two heartbeats were missed, and some
const HEARTBEAT = 15_000
const HOLD = 10_000 // ms before a fall that is hard to believe is asked about again
const LARGEST = 64 * 1024 * 1024

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const byId = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

// --- "What a row holds"

/** A row with its defaults filled in. Throws when it is none. */
function row(given) {
  const it = {
    health: 'passing', zone: '', version: '', weight: 1, node: '', tags: [], meta: {}, ...given,
  }
  const text = (value) => typeof value === 'string'
  const sound =
    text(it.id) && text(it.address) && text(it.zone) && text(it.version) && text(it.node) &&
    Number.isInteger(it.port) && Number.isInteger(it.weight) && HEALTH.includes(it.health) &&
    Array.isArray(it.tags) && it.tags.every(text) && isObject(it.meta) && Object.values(it.meta).every(text)
  if (!sound) throw new Error(`not an instance: ${JSON.stringify(given)?.slice(0, 100)}`)
  const { id, address, port, health, zone, version, weight, node, tags, meta } = it
  return { id, address, port, health, zone, version, weight, node, tags, meta } // fields nobody knows yet are left out
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
const rows = (given) => [...new Map(given.map((each) => [each.id, row(each)])).values()].sort(byId)

// --- "One look-up"

/** The body of GET /v1/lookup/SERVICE. Throws when it is none. */
export function decodeListing(text) {
  const { index, stale_for, instances } = JSON.parse(text)
  if (!Number.isInteger(index) || typeof stale_for !== 'number') throw new Error('not a list of instances')
  return { index, staleFor: stale_for, instances: rows(instances) }
}

/** What a status other than 200 asks for: another token, another question, another try later, or another address. */
export function meaning(status) {
  if (status === 401 || status === 403) return 'token'
  if (status === 400 || status === 404) return 'question'
  return status === 429 || status >= 500 ? 'later' : 'address'
}

// --- "Consul's own endpoint"

/** The body of Consul's GET /v1/health/service/SERVICE, as the look-up service would list it. */
export function decodeConsul(text) {
  const found = JSON.parse(text).map(({ Node, Service, Checks }) => {
    const health = worst(Checks ?? [])
    const { zone = '', version = '', ...meta } = Service.Meta ?? {}
    const weights = Service.Weights ?? { Passing: 1, Warning: 1 }
    return row({
      id: Service.ID || Service.Service, address: Service.Address || Node.Address, port: Service.Port, health, zone, version,
      weight: health === 'warning' ? weights.Warning : weights.Passing, node: Node.Node, tags: Service.Tags ?? [], meta,
    })
  })
  const count = new Map()
  for (const { id } of found) count.set(id, (count.get(id) ?? 0) + 1)
  return found.map((it) => (count.get(it.id) > 1 ? { ...it, id: `${it.id}@${it.node}` } : it)).sort(byId)
}

function worst(checks) {
  if (checks.some(({ CheckID }) => CheckID === '_node_maintenance' || CheckID.startsWith('_service_maintenance:'))) return 'draining'
  const severity = checks.map(({ Status }) => ({ passing: 0, warning: 1 })[Status] ?? 2)
  return HEALTH[Math.max(0, ...severity)]
}

// --- "The stream": what a reader holds

/** Events in, the list out. The list is whole only when a snapshot's last part has come; until then the old one stands. */
export class Replica {
  index = 0
  staleFor = 0
  #held = new Map()
  #pending = []
  #parts = 0

  /** The instances, ordered by id. */
  get list() {
    return [...this.#held.values()].sort(byId)
  }

  /** Take one line; true when the list may be another one now. Throws for a line that is none or out of order. */
  apply(line) {
    const event = JSON.parse(line)
    switch (event.event) {
      case 'snapshot': return this.#part(event)
      case 'delta': return this.#delta(event)
      case 'heartbeat': this.staleFor = event.stale_for; return false
      case 'resync': this.#startAgain(); return false
      default: throw new Error(`unknown event ${event.event}`)
    }
  }

  #startAgain() {
    this.#pending = []
    this.#parts = 0
  }

  #part({ index, part, parts, stale_for, instances }) {
    if (part === 1) this.#startAgain()
    if (part !== this.#parts + 1 || part > parts) throw new Error(`part ${part} of ${parts} out of order`)
    this.#parts = part
    this.#pending.push(...instances.map(row))
    if (part < parts) return false
    this.#held = new Map(this.#pending.map((each) => [each.id, each]))
    this.index = index
    this.staleFor = stale_for
    this.#startAgain()
    return true
  }

  #delta({ index, changed = [], removed = [] }) {
    if (this.#parts || !this.index) throw new Error('a delta before the list was whole')
    for (const id of removed) this.#held.delete(id)
    for (const each of changed.map(row)) this.#held.set(each.id, each)
    this.index = index
    return true
  }
}

// --- Several look-up services: "Which address to ask", "The reader", "Fail static"

export class Lookup {
  /** addresses: ['10.0.0.1:8700', ...]; note: called with what goes wrong and needs nobody. */
  constructor(addresses, { scheme = 'http', token = '', note = () => {} } = {}) {
    Object.assign(this, { addresses, scheme, token, note })
    this.turn = Math.floor(Math.random() * addresses.length)
  }

  /** The list now, from the first address that answers; each is asked at most once. */
  async list(service, query = {}, notFirst = '') {
    const failures = []
    const turned = this.addresses.map(() => this.#next())
    for (const address of turned.sort((a, b) => (a === notFirst) - (b === notFirst))) {
      try {
        const answer = await this.#get(address, service, '', query, AbortSignal.timeout(7000))
        return decodeListing(await answer.text())
      } catch (error) {
        failures.push(`${address}: ${said(error)}`)
      }
    }
    throw new Error(`no list of ${service}: ${failures.join('; ')}`)
  }

  /** The list, and again whenever it has changed, for ever. Nothing that goes wrong empties it. */
  async *follow(service, query = {}) {
    let known = null
    for (let tries = 0; ; tries++) {
      // Full jitter from 0.25 s, doubled up to 30 s; after the second useless connection never sooner than in a second.
      const pause = tries === 0 ? 0 : Math.random() * Math.min(30_000, 250 * 2 ** (tries - 1))
      await sleep(tries >= 2 ? Math.max(1000, pause) : pause)
      const address = this.#next()
      const began = Date.now()
      try {
        let first = true
        for await (const list of this.#stream(address, service, query)) {
          // Hard to believe from a new connection; what a living stream says has been confirmed by the service.
          if (first && known && 2 * list.length < known.length) await this.#confirm(known, address, service, query)
          first = false
          if (!known || JSON.stringify(list) !== JSON.stringify(known)) yield (known = list)
        }
        this.note(`${address} has ended the stream; going to the next`)
      } catch (error) {
        this.note(`${address}: ${said(error)}${known ? '; keeping the last list' : ''}`)
      }
      if (Date.now() - began >= HEARTBEAT) tries = -1 // it lasted: begin anew
    }
  }

  #next() {
    this.turn = (this.turn + 1) % this.addresses.length
    return this.addresses[this.turn]
  }

  async #get(address, service, suffix, query, signal) {
    const url = `${this.scheme}://${address}/v1/lookup/${encodeURIComponent(service)}${suffix}?${new URLSearchParams(query)}`
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {}
    const answer = await fetch(url, { headers, signal, redirect: 'manual' })
    if (answer.status === 200) return answer
    const body = await answer.json().catch(() => ({}))
    throw new Error(`${body.error ?? answer.statusText} (${answer.status}: try another ${meaning(answer.status)})`)
  }

  async *#stream(address, service, query) {
    const control = new AbortController()
    const silent = () => control.abort(new Error('nothing heard for 40 s'))
    let timer = setTimeout(silent, SILENCE)
    try {
      const answer = await this.#get(address, service, '/stream', query, control.signal)
      const replica = new Replica()
      const decoder = new TextDecoder('utf-8', { fatal: true })
      let rest = ''
      for await (const chunk of answer.body) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
        rest = lines.pop()
        if (rest.length > LARGEST) throw new Error('a line without end')
        for (const line of lines) {
          clearTimeout(timer)
          timer = setTimeout(silent, SILENCE)
          if (replica.apply(line)) yield replica.list
        }
      }
      if (!replica.index) throw new Error('the stream ended before the list was whole')
    } finally {
      clearTimeout(timer)
      control.abort()
    }
  }

  async #confirm(known, address, service, query) {
    await sleep(HOLD)
    const { instances } = await this.list(service, query, address)
    if (2 * instances.length >= known.length) throw new Error('it lacks more than half, and a second look-up does not agree')
  }
}

/** In one line. fetch hides the cause of what it throws. */
const said = (error) => String(error.cause?.message || error.cause?.code || error.message).split('\n')[0]

// --- "Step 2: ask one of them"

/** The nodes of a list, each in its turn. */
export class Nodes {
  list = []
  #turn = Math.random()

  /** POST to one node, and to another one when that fails; each at most once, all of it within ms milliseconds. */
  async post(path, body, { headers = {}, within = 30_000 } = {}) {
    const deadline = Date.now() + within
    const passing = this.list.filter(({ health }) => health === 'passing')
    const start = this.#turn < 1 ? Math.floor(this.#turn * passing.length) : this.#turn
    this.#turn = start + 1
    const failures = []
    for (let attempt = 1; attempt <= passing.length && Date.now() < deadline; attempt++) {
      const { address, port, meta } = passing[(start + attempt - 1) % passing.length]
      const place = `${address.includes(':') ? `[${address}]` : address}:${port}`
      const left = deadline - Date.now()
      try {
        const answer = await fetch(`${meta.scheme ?? 'http'}://${place}${path}`, {
          method: 'POST',
          body,
          headers: { ...headers, 'x-envoy-expected-rq-timeout-ms': String(left), 'x-envoy-attempt-count': String(attempt) },
          signal: AbortSignal.timeout(left),
        })
        const text = await answer.text()
        if (answer.ok) return JSON.parse(text)
        if (answer.status !== 500 && answer.status !== 503) throw Object.assign(new Error(text), { final: true })
        failures.push(`${place}: ${text}`)
      } catch (error) {
        if (error.final) throw new Error(`${place} refused: ${error.message}`)
        failures.push(`${place}: ${said(error)}`)
      }
    }
    throw new Error(failures.join('; ') || 'no node is passing')
  }
}

// --- The test vectors

/** Run docs/protocol-vectors.json; the names of the cases that do not come out as they should. */
export function vectors(text) {
  const { consul, listings, streams, refusals } = JSON.parse(text)
  const sent = (it) => it.text ?? JSON.stringify(it.body ?? it.line)
  const same = (found, wanted) => JSON.stringify(found) === JSON.stringify(rows(wanted))
  const fails = (act) => { try { act(); return false } catch { return true } }
  const wrong = []
  const check = ({ name }, right) => right || wrong.push(name)
  for (const it of consul) check(it, it.error ? fails(() => decodeConsul(sent(it))) : same(decodeConsul(sent(it)), it.instances))
  for (const it of listings) {
    if (it.error) { check(it, fails(() => decodeListing(sent(it)))); continue }
    const found = decodeListing(sent(it))
    check(it, found.index === it.index && found.staleFor === it.stale_for && same(found.instances, it.instances))
  }
  for (const it of streams) {
    const replica = new Replica()
    check(it, it.steps.every((step) => {
      if (step.error) return fails(() => replica.apply(sent(step)))
      replica.apply(sent(step))
      return replica.index === step.index && same(replica.list, step.instances)
    }))
  }
  for (const it of refusals) check(it, meaning(it.status) === it.meaning)
  return wrong
}

// --- The command

const USAGE = `usage: node lookup.mjs list SERVICE                 the instances now
       node lookup.mjs watch SERVICE                the list, and again whenever it changes
       node lookup.mjs classify SERVICE IMAGE...    send images straight to the nodes, in turn
       node lookup.mjs vectors FILE                 check this client against docs/protocol-vectors.json
environment: TWOSTEP_REGISTRY=lookup://HOST:PORT,HOST:PORT (default lookup://127.0.0.1:8700; lookup+https:// for TLS)
             TWOSTEP_LOOKUP_TOKEN=TOKEN`

function connect() {
  const [, tls, hosts] = /^lookup(\+https)?:\/\/([^/?]+)$/.exec(process.env.TWOSTEP_REGISTRY ?? 'lookup://127.0.0.1:8700') ?? []
  if (!hosts) throw new Error('TWOSTEP_REGISTRY is not an address of look-up services; use lookup://10.0.0.1:8700,10.0.0.2:8700')
  const addresses = hosts.split(',').map((host) => (/:\d+$/.test(host) ? host : `${host}:8700`))
  const note = (text) => console.error(`lookup.mjs: ${text}`)
  return new Lookup(addresses, { scheme: tls ? 'https' : 'http', token: process.env.TWOSTEP_LOOKUP_TOKEN, note })
}

const show = (list) => list.map((it) => `${it.id}\t${it.address}:${it.port}\t${it.health}`).join('\n')

async function main([command, service, ...files]) {
  if (command === 'vectors' && service) {
    const wrong = vectors(await readFile(service, 'utf8'))
    console.log(wrong.length ? `wrong: ${wrong.join('; ')}` : 'all as they should be')
    return wrong.length ? 1 : 0
  }
  if (command === 'list' && service) {
    console.log(show((await connect().list(service)).instances))
    return 0
  }
  if (command === 'watch' && service) {
    for await (const list of connect().follow(service)) console.log(`${list.length} instances\n${show(list)}`)
  }
  if (command === 'classify' && service && files.length) return classify(connect(), service, files)
  console.error(USAGE)
  return 2
}

async function classify(lookup, service, files) {
  const nodes = new Nodes()
  nodes.list = (await lookup.list(service)).instances
  const follow = async () => { for await (const list of lookup.follow(service)) nodes.list = list }
  follow() // for as long as there are images to send
  let failed = 0
  for (const file of files) {
    try {
      const { node, results } = await nodes.post('/classify?top=1', await readFile(file))
      const [{ label, score }] = results[0].predictions
      console.log(`${basename(file)}\t${label}\t${score}\t${node}`)
    } catch (error) {
      failed++
      console.error(`lookup.mjs: ${file}: ${said(error)}`)
    }
  }
  return failed ? 1 : 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exit(await main(process.argv.slice(2)).catch((error) => (console.error(`lookup.mjs: ${said(error)}`), 1)))
}
