// Choosing rows: all at once, how many there are, and what may be done with them.

export function choose() {
  const boxes = () => [...document.querySelectorAll("input[name=id]")];
  const update = () => {
    const all = boxes();
    const chosen = all.filter((box) => box.checked).length;
    for (const note of document.querySelectorAll("[data-chosen]")) note.textContent = chosen ? `${chosen} selected` : "none selected";
    for (const button of document.querySelectorAll("[data-needs-chosen]")) button.disabled = !chosen;
    const every = document.querySelector("input[data-all]");
    if (every) {
      every.checked = chosen > 0 && chosen === all.length;
      every.indeterminate = chosen > 0 && chosen < all.length;
    }
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("input[data-all]")) for (const box of boxes()) box.checked = event.target.checked;
    if (event.target.matches("input[data-all], input[name=id]")) update();
  });
  document.addEventListener("refreshed", update);
  update();
}
