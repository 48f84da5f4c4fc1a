/* A text shaded by where one of its tokens looks, or by what looks at it. */
(() => {
  "use strict";
  const hs = window.headscope;
  let shown = null; // {window, factor, rows}: see pattern_view.for_browser
  let held = null; // the token that was clicked on
  const lane = Math.random().toString(36).slice(2); // this tab: its last question takes the place of those before

  const tokens = () => document.querySelectorAll("[data-token]");

  function shade(which, at) {
    const [query, key] = [shown.window.queries, shown.window.keys];
    for (const token of tokens()) {
      const i = Number(token.dataset.token);
      const [q, k] = at ? [i, which] : [which, i];
      const row = q >= query[0] && q < query[1] ? shown.rows[q - query[0]] : null;
      const weight = row && k >= key[0] && k < key[1] && k <= q ? row[k - key[0]] : 0;
      token.style.setProperty("--weight", Math.sqrt(weight / 255).toFixed(3));
      token.classList.toggle("here", i === which);
    }
  }

  function clear() {
    for (const token of tokens()) {
      token.style.removeProperty("--weight");
      token.classList.remove("here");
    }
  }

  const pointed = (event) => {
    const token = event.target.closest && event.target.closest("[data-token]");
    return token && shown && shown.rows ? Number(token.dataset.token) : null;
  };

  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const which = pointed(event);
      if (which !== null && held === null) shade(which, event.shiftKey);
    });
  }
  document.addEventListener("pointerout", (event) => {
    if (held === null && pointed(event) !== null) clear();
  });
  document.addEventListener("click", (event) => {
    const which = pointed(event);
    if (which === null) return;
    held = held === which ? null : which;
    for (const token of tokens()) token.setAttribute("aria-pressed", String(Number(token.dataset.token) === held));
    if (held === null) clear();
    else shade(held, event.shiftKey);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "pattern-text" || event.key !== "Enter") return;
    if (event.ctrlKey || event.metaKey) document.getElementById("ask-pattern").click();
  });

  Object.assign(window.dash_clientside.headscope, {
    /* Arriving is not asking, though Dash calls this then too: the model is opened for nobody else. */
    ask: (clicks, text, chat) =>
      clicks
        ? { text: text || " ", chat: Boolean(chat && chat.length), at: clicks, lane, run: hs.get("run") }
        : window.dash_clientside.no_update,
    text(given) {
      shown = given;
      held = null;
      return window.dash_clientside.no_update;
    },
  });
})();
