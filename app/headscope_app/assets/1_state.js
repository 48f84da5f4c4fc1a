/* The address is the state. Controls change it here, panels hear of it at once, and Dash's callbacks
   through the store "state" as soon as it has been still for a moment. */
(() => {
  "use strict";
  const STILL = 90; // ms without a change after which the server is asked
  const WRITTEN = 250; // ms between changes of the address: browsers refuse more than some a second
  const READ = 400; // ms after a page without graphs is there, for it to be painted
  const THEMES = ["light", "dark"];

  const hs = { seen: null, keys: {}, hears: new Set(), pages: new Set() };
  window.headscope = hs;
  let asking = 0, writing = 0;
  let at = null; // the page that is on the screen
  let held = ""; // what has the focus while a page is laid out in other colours

  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const kept = () => { try { return localStorage.getItem("headscope-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("headscope-theme", theme); } catch { /* none */ } };

  function themeOf(search) {
    const asked = [new URLSearchParams(search).get("theme"), kept()];
    return asked.find((theme) => THEMES.includes(theme)) || system();
  }

  hs.get = (key) => new URLSearchParams(hs.seen ? hs.seen.search : location.search).get(key) || "";
  hs.list = (key) => hs.get(key).split(",").filter(Boolean);

  /* What makes a page another one. */
  function placeOf(seen) {
    const query = new URLSearchParams(seen.search);
    const keys = (hs.keys[seen.path] || []).filter((key) => key !== "theme");
    return JSON.stringify([seen.path, ...keys.map((key) => query.get(key))]);
  }

  /* What the server lays out anew: another page, and pictures in other colours. */
  function identity(seen) {
    const drawn = (hs.keys[seen.path] || []).includes("theme");
    return `${drawn ? seen.theme : ""} ${placeOf(seen)}`;
  }

  function withChanges(search, changes) {
    const query = new URLSearchParams(search);
    for (const [key, value] of Object.entries(changes)) {
      if (value === "" || value === null || value === undefined) query.delete(key);
      else query.set(key, String(value));
    }
    const written = query.toString().replaceAll("%2C", ",");
    return written ? `?${written}` : "";
  }

  hs.href = (path, changes = {}) => path + withChanges(hs.seen.search, changes);

  /* Change the state. `push` makes a step that the back button takes back. */
  hs.change = (changes, push = false) => {
    const search = withChanges(hs.seen.search, changes);
    if (search === hs.seen.search) return;
    const next = { ...hs.seen, search };
    if (identity(next) !== identity(hs.seen)) return hs.go(hs.seen.path + search);
    if (push) write();
    hs.seen = next;
    for (const hear of hs.hears) hear();
    clearTimeout(asking);
    asking = setTimeout(() => set("state", { data: hs.seen }), STILL);
    clearTimeout(writing);
    if (push) step(hs.seen.path + search);
    else writing = setTimeout(write, WRITTEN);
  };

  /* With this server's name: a path that begins with two slashes would be another server's. */
  const here = () => location.origin + hs.seen.path + hs.seen.search;

  function write() {
    clearTimeout(writing);
    if (!hs.seen || location.pathname !== hs.seen.path || location.search === hs.seen.search) return;
    history.replaceState(history.state, "", here());
    tell();
  }

  /* Dash's own copy of the address; what it is told through properties it would push once more. */
  const tell = () => window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));

  /* Another page. */
  hs.go = (href) => { write(); step(href); };
  function step(href) {
    history.pushState({}, "", href);
    tell();
  }

  hs.say = (text) => { const place = document.getElementById("said"); if (place) place.textContent = text; };

  hs.toggleTheme = () => {
    const theme = hs.seen.theme === "dark" ? "light" : "dark";
    const before = identity(hs.seen);
    keep(theme);
    document.documentElement.dataset.theme = theme;
    hs.seen = { ...hs.seen, theme, search: withChanges(hs.seen.search, { theme }) };
    held = document.activeElement === document.body ? "" : looks(document.activeElement);
    history.replaceState(history.state, "", here());
    tell();
    set("state", { data: hs.seen });
    if (identity(hs.seen) !== before) set("page", { data: hs.seen });
  };

  /* By what an element is known again when it was made anew. */
  const looks = (e) =>
    [e.tagName, e.id, e.dataset.toggle, e.getAttribute("aria-label"), e.textContent.slice(0, 60)].join("|");

  function giveBackFocus() {
    if (!held || document.activeElement !== document.body) return;
    const all = document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]");
    [...all].find((e) => looks(e) === held)?.focus({ preventScroll: true });
  }

  /* What a control shows where the address says nothing: what its place names as data-rest, or of a
     slider its lower end. */
  const restOf = (control) =>
    control.closest("[data-rest]")?.dataset.rest ?? (control.type === "range" ? control.min : "");

  /* Controls named state-KEY show what the address says, after the back button too. */
  function showControls() {
    for (const control of document.querySelectorAll("[id^='state-']")) {
      if (control === document.activeElement) continue;
      const value = hs.get(control.id.slice(6)) || restOf(control);
      if (control.tagName === "SELECT") {
        control.value = value;
        if (control.selectedIndex < 0) control.value = restOf(control); // no choice here
      } else if (control.value !== value) set(control.id, { value });
    }
    for (const control of document.querySelectorAll("[id^='part-']")) {
      const [, key, part] = control.id.split("-");
      const value = hs.get(key).split("-")[part] || "";
      if (control !== document.activeElement && control.value !== value) set(control.id, { value });
    }
    for (const button of document.querySelectorAll("[data-toggle]")) {
      const [key, value] = button.dataset.toggle.split("=");
      button.setAttribute("aria-pressed", String(hs.list(key).includes(value)));
    }
  }
  hs.hears.add(showControls);

  /* Links to the other pages of a run lead on with the head and the selection of now. */
  function showLinks() {
    for (const link of document.querySelectorAll("nav.top .links a[href*='run=']")) {
      const [path, search] = link.getAttribute("href").split("?");
      const now = ["head", "sel", "probe"].map((key) => [key, hs.get(key)]);
      link.setAttribute("href", path + withChanges(search, Object.fromEntries(now)));
    }
  }
  hs.hears.add(showLinks);

  document.addEventListener("input", ({ target }) => {
    if (!hs.seen || !target.id) return;
    if (target.id.startsWith("part-")) {
      const key = target.id.split("-")[1];
      const parts = [...document.querySelectorAll(`[id^='part-${key}-']`)];
      const given = parts.some((part) => part.value !== "");
      hs.change({ [key]: given ? parts.map((part, i) => part.value || (i ? part.max : part.min)).join("-") : "" });
    }
    if (!target.id.startsWith("state-")) return;
    const rest = target.value === restOf(target);
    const key = target.id.slice(6);
    const changes = { [key]: rest ? "" : target.value };
    if (key === "probe") changes.min = "";
    hs.change(changes, target.tagName === "SELECT");
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.go");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      hs.go(link.getAttribute("href"));
      return;
    }
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.toggle) {
      const [key, value] = button.dataset.toggle.split("=");
      const values = hs.list(key);
      const left = values.filter((each) => each !== value);
      hs.change({ [key]: (left.length < values.length ? left : [...values, value]).join(",") }, true);
    } else if (button.dataset.set) {
      hs.change(Object.fromEntries(new URLSearchParams(button.dataset.set)), true);
    } else if (button.id === "copy-link") {
      write();
      const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy link"; }, 1500); };
      navigator.clipboard.writeText(location.href).then(done, () => prompt("The link:", location.href));
    } else if (button.id === "toggle-theme") hs.toggleTheme();
    else if (button.id === "open-help") document.getElementById("help").showModal();
    else if (button.id === "close-help") document.getElementById("help").close();
    else if (button.id === "close-toast") document.getElementById("toast").hidden = true;
  });

  /* Plotly takes a while to be read, and Dash would begin only when a graph is there. Here it is read
     while the server makes the page; Dash takes a promise in its place for what it promises. */
  function fetchPlotly() {
    if (window.Plotly || !window._dashPlotlyJSURL) return;
    window.Plotly = new Promise((done, failed) => {
      const script = document.createElement("script");
      const gone = () => { delete window.Plotly; failed(); }; // whoever needs it asks anew
      Object.assign(script, { src: window._dashPlotlyJSURL, onload: done, onerror: gone });
      document.head.append(script);
    });
    window.Plotly.catch(() => {});
  }

  const none = () => window.dash_clientside.no_update;

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.headscope = {
    address(path, search, keys) {
      hs.keys = keys;
      const theme = themeOf(search);
      const seen = { path: path || "/", search: search || "", theme };
      const first = hs.seen === null;
      const same = !first && hs.seen.path === seen.path && hs.seen.search === seen.search;
      const another = first || hs.shown !== identity(seen);
      if (same && !another) return [none(), none()];
      document.documentElement.dataset.theme = theme;
      hs.seen = seen;
      hs.shown = identity(seen);
      if (!another) for (const hear of hs.hears) hear();
      if (first && seen.path !== "/") setTimeout(fetchPlotly, 50);
      return [seen, another ? seen : none()];
    },
    arrived() {
      requestAnimationFrame(() => {
        showControls();
        showLinks();
        const title = document.getElementById("title");
        document.title = title ? `${title.textContent} · headscope` : "headscope";
        const place = placeOf(hs.seen);
        if (at !== null && at !== place) {
          title?.focus({ preventScroll: true });
          window.scrollTo(0, 0);
        } else giveBackFocus();
        held = "";
        at = place;
        for (const page of hs.pages) page();
        setTimeout(fetchPlotly, READ); // where it is not there yet: for the page after this one
      });
      return none();
    },
    tell(message) {
      const toast = document.getElementById("toast");
      const close = Object.assign(document.createElement("button"), { id: "close-toast", type: "button", textContent: "Close" });
      toast.replaceChildren(document.createTextNode(message.text), close);
      toast.hidden = false; // Dash believes it is open, once it was closed here
      return false;
    },
  };
})();
