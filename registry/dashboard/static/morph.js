// Brings an element to what new HTML says, touching only what differs: focus, selection and open menus stay.

export function element(html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  return box.content.firstElementChild;
}

export function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !ours(from, name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value && !ours(from, name)) from.setAttribute(name, value);
  }
  const before = [...from.childNodes];
  const after = [...to.childNodes];
  for (let i = 0; i < Math.max(before.length, after.length); i += 1) {
    if (i >= before.length) from.append(after[i]);
    else if (i >= after.length) before[i].remove();
    else if (!before[i].isEqualNode(after[i])) morph(before[i], after[i]);
  }
}

// What the person who looks has changed, and no server knows of.
function ours(node, name) {
  return (name === "open" && (node.nodeName === "DETAILS" || node.nodeName === "DIALOG")) || (name === "class" && node.nodeName === "TR" && node.classList.contains("here"));
}
