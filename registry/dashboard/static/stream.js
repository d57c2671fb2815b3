// One event stream for each open tab. It sends what has changed of this page at most once a second, and a beat in
// between, so that silence means that the dashboard is gone. It is closed while the tab is hidden.
import { element, morph } from "./morph.js";

const STALE = 10_000; // milliseconds without good news after which the page says that it is old
const SPEAK = 10_000; // at most so often to those who listen to the page
const body = document.body;
const banner = document.getElementById("banner");
const polite = document.getElementById("polite");

export function follow() {
  const state = {
    source: null, paused: false, waiting: new Map(), order: null, version: body.dataset.version,
    heardAt: Date.now(), spokenAt: 0, toSay: "", lost: false, left: "", beat: null,
  };
  if (!body.dataset.stream) return { toggle() {}, apply() {} };

  const open = () => {
    if (state.source || document.hidden || state.left) return;
    const url = new URL(body.dataset.stream, location.href);
    url.searchParams.set("v", state.version);
    state.source = new EventSource(url);
    state.source.addEventListener("message", (event) => take(JSON.parse(event.data)));
    state.source.addEventListener("error", lost);
  };
  const close = () => {
    state.source?.close();
    state.source = null;
  };
  const lost = () => {
    if (state.source?.readyState === EventSource.CLOSED) {
      close();
      setTimeout(open, 3000);
    }
    state.lost = true;
    tell();
  };

  // The page is no more: what it was about has gone, and so does its stream.
  const leave = (words) => {
    state.left = words;
    close();
    tell();
  };

  const take = (message) => {
    state.heardAt = Date.now();
    state.lost = false;
    if (message.leave) {
      leave(message.leave);
      return;
    }
    if (message.v !== undefined) state.version = message.v;
    if (message.now !== undefined) state.beat = { now: message.now, heard: message.heard, live: message.live, at: Date.now() };
    for (const [id, html] of Object.entries(message.parts ?? {})) {
      if (state.paused && id !== "fresh" && id !== "notice") state.waiting.set(id, html);
      else put(id, html);
    }
    if (message.order) reorder(message.order);
    if (message.say) state.toSay = message.say;
    tell();
  };

  const put = (id, html) => {
    const old = document.getElementById(id);
    if (!old) return;
    const fresh = element(html);
    if (!old.isEqualNode(fresh)) {
      morph(old, fresh);
      const now = document.getElementById(id);
      if (now?.nodeName === "TR") flash(now);
    }
  };

  // Rows have come, gone or changed places. They do so under nobody's finger: somebody who is in the table, or has
  // chosen rows, is asked first.
  const reorder = (order) => {
    const table = document.querySelector("table[data-rows]");
    const shown = table ? [...table.querySelectorAll("tbody tr[id]")].map((row) => row.id) : [];
    const moved = order.ids.filter((id, at) => shown[at] !== id).length + Math.max(0, shown.length - order.ids.length);
    if (!moved) return;
    const busy = table?.contains(document.activeElement) || document.querySelector("input[name=id]:checked");
    if (state.paused || busy) offer(moved);
    else refresh();
  };

  const offer = (moved) => {
    const button = document.getElementById("apply-order");
    if (!button) return;
    button.hidden = false;
    button.textContent = `Apply new order (${moved})`;
    button.onclick = () => {
      button.hidden = true;
      refresh();
    };
  };

  let refreshing = false;
  const refresh = async () => {
    if (refreshing) return;
    refreshing = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = document.getElementById("main");
      const typed = main.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
      if (typed) return; // nobody's words are taken away
      morph(main, document.adoptNode(fresh.getElementById("main")));
      state.version = fresh.body.dataset.version;
      document.dispatchEvent(new Event("refreshed"));
    } catch {
      lost();
    } finally {
      refreshing = false;
    }
  };

  const tell = () => {
    if (state.left) {
      banner.hidden = false;
      banner.textContent = `${state.left} Reload the page to see what there is.`;
      body.classList.add("stale");
      return;
    }
    const silent = Date.now() - state.heardAt;
    const gone = state.lost || silent > STALE;
    banner.hidden = !gone;
    if (gone) {
      const since = `${new Date(state.heardAt).toISOString().slice(11, 19)} UTC`;
      const words = `The dashboard does not answer since ${since}. What you see is as old as that.`;
      if (banner.textContent !== words) banner.textContent = words;
    }
    const fresh = document.getElementById("fresh");
    if (state.beat && fresh) age(fresh, state.beat, gone);
    times(state.beat);
    body.classList.toggle("stale", gone || fresh?.classList.contains("old") === true);
    if (state.toSay && Date.now() - state.spokenAt > SPEAK) {
      polite.textContent = state.toSay;
      state.toSay = "";
      state.spokenAt = Date.now();
    }
  };

  // Two clocks: what the dashboard said of the registry, and how long ago it said so.
  const age = (fresh, beat, gone) => {
    if (beat.heard === null) return;
    const seconds = Math.max(0, beat.now - beat.heard + (Date.now() - beat.at) / 1000);
    const old = gone || seconds * 1000 > STALE;
    const at = new Date(beat.heard * 1000).toISOString().slice(11, 19);
    const words = old ? `data of ${at} UTC, ${length(seconds)} old` : `live, ${Math.round(seconds)} s old`;
    fresh.classList.toggle("old", old);
    fresh.classList.toggle("live", !old);
    const span = fresh.querySelector(".words");
    if (span.textContent !== words) span.textContent = words;
  };

  const times = (beat) => {
    if (!beat) return;
    const now = beat.now + (Date.now() - beat.at) / 1000;
    for (const each of document.querySelectorAll("time[data-at]")) {
      const span = length(Math.max(0, now - Number(each.dataset.at)));
      const words = "span" in each.dataset ? span : `${span} ago`;
      if (each.textContent !== words) each.textContent = words;
    }
  };

  const flash = (node) => {
    node.classList.remove("changed");
    void node.offsetWidth; // so that it begins again
    node.classList.add("changed");
  };

  const button = document.querySelector("[data-action=pause]");
  const toggle = () => {
    state.paused = !state.paused;
    button?.setAttribute("aria-pressed", String(state.paused));
    if (button) button.textContent = state.paused ? "Paused" : "Pause";
    if (!state.paused) {
      for (const [id, html] of state.waiting) put(id, html);
      state.waiting.clear();
    }
  };
  button?.addEventListener("click", toggle);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  setInterval(tell, 1000);
  open();
  return { toggle, refresh };
}

// A length of time in its largest unit that is not below 1.5, as the pages write it.
function length(seconds) {
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 1.5 * unit) return `${Math.round(seconds / unit)} ${name}`;
  }
  return `${Math.round(seconds)} s`;
}
