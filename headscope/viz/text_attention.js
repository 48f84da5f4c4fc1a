// Click or walk to a token to see where the chosen heads look from it. Finds its own roots, so that
// it runs as well where a notebook evaluates scripts away from their place.
(() => {
  for (const root of document.querySelectorAll(".hs-text:not([data-live])")) {
    root.dataset.live = "";
    const tokens = [...root.querySelectorAll("[role=option]")];
    const heads = [...root.querySelectorAll("button[data-head]")];
    const turn = root.querySelector("button[data-turn]");
    const said = root.querySelector(".hs-said");
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const maps = root.dataset.weights.split(" ").map(bytes);
    const pressed = (button) => button.getAttribute("aria-pressed") === "true";
    const press = (button, on) => button.setAttribute("aria-pressed", String(on));
    const name = (at) => "“" + tokens[at].textContent.trim() + "”";
    let chosen = tokens.length - 1;

    const weight = (maps_, query, key) => {
      if (key > query) return null;
      const at = (query * (query + 1)) / 2 + key;
      return maps_.reduce((sum, map) => sum + (map[at] / 255) ** 2, 0) / maps_.length;
    };

    const draw = () => {
      const shown = maps.filter((_, i) => pressed(heads[i]));
      const back = pressed(turn);
      const found = tokens.map((_, at) =>
        back ? weight(shown, at, chosen) : weight(shown, chosen, at));
      tokens.forEach((token, at) => {
        const is = at === chosen;
        token.style.setProperty("--w", Math.sqrt(found[at] ?? 0).toFixed(3));
        token.classList.toggle("hs-out", found[at] === null);
        token.setAttribute("aria-selected", String(is));
        token.tabIndex = is ? 0 : -1;
      });
      const best = found.map((w, at) => [w ?? 0, at]).filter(([w]) => w >= 0.005)
        .sort((a, b) => b[0] - a[0]).slice(0, 5)
        .map(([w, at]) => name(at) + " " + Math.round(100 * w) + " %");
      const names = heads.filter(pressed).map((b) => b.textContent).join(", ");
      const who = names + (shown.length > 1 ? " on average" : "");
      said.textContent = back
        ? who + ": " + name(chosen) + " is looked at from " + (best.join(", ") || "nowhere") + "."
        : who + ": from " + name(chosen) + " to " + (best.join(", ") || "nowhere") + ".";
    };

    const choose = (at) => {
      chosen = Math.min(Math.max(at, 0), tokens.length - 1);
      draw();
      tokens[chosen].focus();
    };

    tokens.forEach((token, at) => token.addEventListener("click", () => choose(at)));
    root.querySelector("[role=listbox]").addEventListener("keydown", (event) => {
      const to = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, ArrowUp: chosen - 10,
        ArrowDown: chosen + 10, Home: 0, End: tokens.length - 1 }[event.key];
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      choose(to);
    });
    heads.forEach((button) => button.addEventListener("click", () => {
      press(button, !pressed(button));
      if (!heads.some(pressed)) press(button, true);
      draw();
    }));
    turn.addEventListener("click", () => { press(turn, !pressed(turn)); draw(); });
    root.querySelector("[role=toolbar]").hidden = false;
    draw();
  }
})();
