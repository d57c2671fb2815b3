// Everything by keyboard: / filter, j and k rows, Enter open, x select, p hold still, ? the list of keys.

export function keys(stream) {
  const help = document.getElementById("help");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) {
      if (event.key === "Escape") event.target.blur?.();
      return;
    }
    const act = { "/": filter, j: () => move(1), k: () => move(-1), x: select, p: stream.toggle, "?": () => help.showModal() }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function filter() {
  document.querySelector("input[type=search]")?.focus();
}

function rows() {
  return [...document.querySelectorAll("table[data-rows] tbody tr[id]")];
}

// The row's own link has the focus, so that Enter opens it and readers of screens say where one is.
function move(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("here"));
  const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
  all[at]?.classList.remove("here");
  next.classList.add("here");
  next.querySelector("a")?.focus();
  next.scrollIntoView({ block: "nearest" });
}

function select() {
  rows().find((row) => row.classList.contains("here"))?.querySelector("input[type=checkbox]")?.click();
}
