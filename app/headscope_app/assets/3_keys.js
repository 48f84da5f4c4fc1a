/* The keyboard. A page without a map has the keys that make sense on it. */
(() => {
  "use strict";
  const hs = window.headscope;
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function open(id) {
    const link = document.getElementById(id);
    if (link) link.click();
    return Boolean(link);
  }

  function pressed(key, shift) {
    if (MOVES[key]) return hs.move(...MOVES[key], shift);
    switch (key) {
      case "Enter": return hs.open();
      case " ": return hs.take();
      case "[": return hs.turn(-1);
      case "]": return hs.turn(1);
      case "/": {
        const field = document.getElementById("state-q");
        if (field) { field.focus(); field.select(); }
        return Boolean(field);
      }
      case "m": return open("open-map");
      case "t": hs.toggleTheme(); return true;
      case "?": document.getElementById("help").showModal(); return true;
      case "Escape": {
        document.getElementById("toast").hidden = true;
        if (hs.list("sel").length) hs.change({ sel: "" });
        return true;
      }
      default: return false;
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !hs.seen) return;
    if (document.getElementById("help").open) {
      if (event.key === "?") { document.getElementById("help").close(); event.preventDefault(); }
      return;
    }
    const at = event.target.closest ? event.target : document.body;
    if (at.matches("input, textarea, select, [contenteditable], [role=listbox], [role=combobox]")) {
      if (event.key === "Escape") at.blur();
      return;
    }
    if (at.matches("a, button, summary") && [" ", "Enter"].includes(event.key)) return;
    if (at.closest(".scroll") && MOVES[event.key]) return; // it scrolls
    if (pressed(event.key, event.shiftKey)) event.preventDefault();
  });
})();
