/* Heads on graphs: one selection that all of them share. Rings and shades are drawn over a graph, which
   is left as it is, so that moving from head to head takes no time however many there are. */
(() => {
  "use strict";
  const hs = window.headscope;
  const SVG = "http://www.w3.org/2000/svg";
  const TWICE = 400; // ms in which a second click opens a head
  const STILL = 5; // px that a click may move
  const NEAR = 14; // px around a point in which it is meant
  let heads = null; // {layers, heads, group, roles, of}: what the page is about
  let values = {}; // by "probe" and "against", a number a head
  let places = new Map(); // name -> index
  let matching = null, asked = ""; // which heads the filters leave, and for which filters
  let drawing = 0, clicked = { name: "", at: 0 };

  const name = (i) => `L${heads.layers[Math.floor(i / heads.heads)]}H${i % heads.heads}`;
  const graphs = () => [...document.querySelectorAll("[data-heads] .js-plotly-plot")].filter((g) => g._fullLayout);
  const kind = (graph) => graph.closest("[data-heads]").dataset.heads;
  const at = (graph, i) =>
    kind(graph) === "map"
      ? [Math.floor(i / heads.heads), i % heads.heads]
      : [values.against ? values.against[i] : NaN, values.probe ? values.probe[i] : NaN];

  /* Filters. */
  function filtered() {
    const keys = ["role", "min", "layers", "kv", "q", "probe"].map(hs.get);
    if (matching && asked === JSON.stringify(keys)) return matching;
    asked = JSON.stringify(keys);
    const roles = hs.list("role"), words = hs.get("q").toLowerCase().split(/\s+/).filter(Boolean);
    const least = hs.get("min") === "" ? NaN : Number(hs.get("min"));
    const ends = hs.get("layers").split("-").map(Number), kv = hs.get("kv");
    const named = heads.of.map((own) => own.map((r) => heads.roles[r]));
    matching = heads.of.map((own, i) => {
      const layer = heads.layers[Math.floor(i / heads.heads)], head = i % heads.heads;
      if (roles.length && !roles.some((r) => (r === "none" ? !own.length : named[i].includes(r)))) return false;
      if (hs.get("probe") && values.probe && values.probe[i] < least) return false;
      if (hs.get("layers") && (layer < ends[0] || layer > ends[1])) return false;
      if (kv !== "" && Math.floor(head / heads.group) !== Number(kv)) return false;
      const text = `${name(i)} ${named[i].join(" ")} ${named[i].join(" ").replaceAll("_", " ")}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    return matching;
  }

  function count() {
    const place = document.getElementById("matching");
    if (!place) return;
    const n = filtered().filter(Boolean).length, chosen = hs.list("sel").length;
    const all = n === heads.of.length ? `${n} heads` : `${n} of ${heads.of.length} heads match`;
    place.textContent = chosen ? `${all} · ${chosen} selected` : all;
  }

  /* Drawing. */
  function layer(graph) {
    let svg = graph.querySelector(":scope > svg.rings");
    if (!svg) {
      svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("class", "rings");
      svg.setAttribute("aria-hidden", "true");
      for (const part of ["shade", "chosen", "current"]) {
        const path = document.createElementNS(SVG, "path");
        path.setAttribute("class", part);
        svg.append(path);
      }
      graph.append(svg);
    }
    return svg;
  }

  function shape(graph) {
    const { xaxis, yaxis } = graph._fullLayout;
    const inside = (x, y) => x >= 0 && y >= 0 && x <= xaxis._length && y <= yaxis._length;
    const [w, h] = [Math.abs(xaxis.l2p(1) - xaxis.l2p(0)), Math.abs(yaxis.l2p(1) - yaxis.l2p(0))];
    return (i, grow) => {
      const [x, y] = at(graph, i), px = xaxis.l2p(x), py = yaxis.l2p(y);
      if (!inside(px, py)) return "";
      const [cx, cy] = [px + xaxis._offset, py + yaxis._offset];
      if (kind(graph) !== "map") {
        const r = 4.5 + grow;
        return `M${cx - r} ${cy}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      }
      return `M${cx - w / 2 - grow} ${cy - h / 2 - grow}h${w + 2 * grow}v${h + 2 * grow}h${-w - 2 * grow}z`;
    };
  }

  function draw(graph) {
    const svg = layer(graph), path = shape(graph);
    const { xaxis, yaxis, width, height } = graph._fullLayout;
    const frame = [width, height, xaxis.range, yaxis.range, asked, Object.keys(values), graph._shaded];
    if (graph._frame !== JSON.stringify(frame)) {
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
      const hidden = filtered().map((shows, i) => (shows ? "" : path(i, 0))).join("");
      svg.children[0].setAttribute("d", hidden);
      graph._frame = JSON.stringify(frame);
    }
    const chosen = hs.list("sel").map((n) => places.get(n)).filter((i) => i !== undefined);
    svg.children[1].setAttribute("d", chosen.map((i) => path(i, 0)).join(""));
    const here = places.get(hs.get("head"));
    svg.children[2].setAttribute("d", here === undefined ? "" : path(here, 2));
  }

  function tellLeast() {
    const [place, slider] = ["least", "state-min"].map((id) => document.getElementById(id));
    if (place && slider) place.textContent = Number(hs.get("min") || slider.min).toFixed(3);
  }
  hs.hears.add(tellLeast);

  function refresh() {
    if (!heads || !heads.of) return;
    filtered();
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => { graphs().forEach(draw); count(); });
  }
  hs.hears.add(refresh);

  /* Choosing. */
  function said(i) {
    const own = heads.of ? heads.of[i].map((r) => heads.roles[r].replaceAll("_", " ")) : [];
    hs.say(`${name(i)}, ${own.join(", ") || "no role"}`);
  }

  function choose(i, more) {
    const chosen = hs.list("sel"), which = name(i);
    const has = chosen.includes(which);
    const sel = more ? (has ? chosen.filter((n) => n !== which) : [...chosen, which]) : has ? chosen : [which];
    hs.change({ head: which, sel: sel.join(",") });
    said(i);
  }

  /* The head under a point of the screen, -1 for none. */
  function under(graph, event) {
    const { xaxis, yaxis } = graph._fullLayout, box = graph.getBoundingClientRect();
    const px = event.clientX - box.left - xaxis._offset, py = event.clientY - box.top - yaxis._offset;
    if (px < 0 || py < 0 || px > xaxis._length || py > yaxis._length) return -1;
    if (kind(graph) === "map") {
      const row = Math.round(xaxis.p2l(px)), head = Math.round(yaxis.p2l(py));
      const there = row >= 0 && head >= 0 && row < heads.layers.length && head < heads.heads;
      return there ? row * heads.heads + head : -1;
    }
    const shows = filtered();
    let best = -1, least = NEAR ** 2;
    heads.of.forEach((_, i) => {
      const [x, y] = at(graph, i), far = (xaxis.l2p(x) - px) ** 2 + (yaxis.l2p(y) - py) ** 2;
      if (shows[i] && far < least) [best, least] = [i, far];
    });
    return best;
  }

  function click(graph, event) {
    const i = heads && heads.of ? under(graph, event) : -1;
    if (i < 0) return;
    const now = performance.now(), more = event.shiftKey || event.ctrlKey || event.metaKey;
    const again = clicked.name === name(i) && now - clicked.at < TWICE && !more;
    clicked = { name: name(i), at: now };
    if (again) hs.open();
    else choose(i, more);
  }

  /* Plotly tells of a click only where it has drawn a tooltip before, which takes a moment. */
  let pressed = null;
  document.addEventListener("pointerdown", (event) => {
    const graph = event.target.closest && event.target.closest("[data-heads] .js-plotly-plot");
    const tool = event.target.closest && event.target.closest(".modebar");
    pressed = graph && !tool && event.button === 0 ? { graph, x: event.clientX, y: event.clientY } : null;
  }, true);
  document.addEventListener("pointerup", (event) => {
    if (!pressed) return;
    const { graph, x, y } = pressed;
    pressed = null;
    if (Math.hypot(event.clientX - x, event.clientY - y) < STILL) click(graph, event);
  }, true);

  function attach(graph) {
    graph._heads = true;
    graph.on("plotly_selected", (found) => {
      if (!heads || !found || !found.range) return;
      const [xs, ys] = [found.range.x, found.range.y].map((r) => [Math.min(...r), Math.max(...r)]);
      const shows = filtered();
      const inside = heads.of.flatMap((_, i) => {
        const [x, y] = at(graph, i);
        return shows[i] && x >= xs[0] && x <= xs[1] && y >= ys[0] && y <= ys[1] ? [name(i)] : [];
      });
      hs.change({ sel: inside.join(",") }, true);
      hs.say(`${inside.length} heads selected`);
      setTimeout(() => window.Plotly.relayout(graph, { selections: [] }));
    });
    for (const event of ["plotly_afterplot", "plotly_relayouting"]) graph.on(event, () => heads && heads.of && draw(graph));
    if (heads && heads.of) draw(graph);
  }

  new MutationObserver(() => {
    for (const graph of document.querySelectorAll("[data-heads] .js-plotly-plot")) {
      if (!graph._heads && graph.on && graph._fullLayout) attach(graph);
    }
  }).observe(document.documentElement, { childList: true, subtree: true });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (!button || !heads) return;
    if (button.dataset.act === "select-matching") {
      const all = filtered().flatMap((shows, i) => (shows ? [name(i)] : []));
      hs.change({ sel: all.join(",") }, true);
    } else if (button.dataset.act === "no-filters") {
      hs.change({ role: "", min: "", layers: "", kv: "", q: "" }, true);
    }
  });

  /* What keys do, on pages that are about heads. */
  const about = () => heads && document.querySelector("[data-about-heads]");
  hs.open = () => {
    if (!hs.get("head")) return false;
    if (hs.seen.path === "/run") hs.go(hs.href("/head"));
    else if (hs.seen.path === "/head") hs.go(hs.href("/run"));
    else return false;
    return true;
  };
  hs.move = (across, down, more) => {
    if (!about()) return false;
    const i = places.get(hs.get("head"));
    const row = i === undefined ? 0 : Math.floor(i / heads.heads) + across;
    const head = i === undefined ? 0 : (i % heads.heads) + down;
    if (row < 0 || head < 0 || row >= heads.layers.length || head >= heads.heads) return true;
    const next = row * heads.heads + head;
    const sel = more ? [...new Set([...hs.list("sel"), hs.get("head"), name(next)])].filter(Boolean).join(",") : hs.get("sel");
    hs.change({ head: name(next), sel });
    said(next);
    return true;
  };
  hs.take = () => {
    const i = places.get(hs.get("head"));
    if (!about() || i === undefined) return false;
    choose(i, true);
    return true;
  };
  hs.turn = (step) => {
    const control = document.getElementById("state-probe");
    if (!control) return false;
    const options = [...control.options].map((option) => option.value);
    const next = (options.indexOf(hs.get("probe")) + step + options.length) % options.length;
    hs.change({ probe: options[next], min: "" }, true);
    hs.say(`coloured by ${options[next] || "role"}`);
    return true;
  };

  Object.assign(window.dash_clientside.headscope, {
    heads(given, numbers) {
      heads = given;
      values = numbers || {};
      places = new Map();
      for (let i = 0; i < heads.layers.length * heads.heads; i++) places.set(name(i), i);
      matching = null;
      graphs().forEach((graph) => { graph._frame = ""; });
      refresh();
      return window.dash_clientside.no_update;
    },
    /* Two scores that were clicked on, told by what the cell says: "this and that". */
    pair(clicked) {
      const control = document.getElementById("state-against");
      const said = clicked && control ? clicked.points[0].hovertext.split("<br>")[0] : "";
      const named = new Map([...control.options].map((option) => [option.textContent, option.value]));
      for (let i = said.indexOf(" and "); i >= 0; i = said.indexOf(" and ", i + 1)) {
        const [one, other] = [named.get(said.slice(0, i)), named.get(said.slice(i + 5))];
        if (one && other && one !== other) hs.change({ probe: one, against: other, min: "" }, true);
      }
      return window.dash_clientside.no_update;
    },
    /* The state, but only when a part of it has changed since the last time. */
    ofProbe: (state, before) => changed(state, before, ["probe", "against"]),
    ofHead: (state, before) => changed(state, before, ["head", "probe"]),
    ofChosen: (state, before) => changed(state, before, ["sel", "probe", "against"]),
  });

  function changed(state, before, keys) {
    const [now, then] = [state, before || { search: "?" }].map((s) => new URLSearchParams(s.search));
    const same = before && state.path === before.path && keys.every((k) => (now.get(k) || "") === (then.get(k) || ""));
    return same ? window.dash_clientside.no_update : state;
  }
})();
