(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  data.roles = data.roles.map((roles) => roles.map((role) => data.names[role]));
  const cells = [...document.querySelectorAll(".cells > g")];
  const indexOf = new Map(cells.map((cell, index) => [cell, index]));
  const byName = new Map(cells.map((cell, index) => [cell.id, index]));
  const map = document.querySelector(".map");
  const chips = [...document.querySelectorAll(".chip")];
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  // [mean, low, high] of every head; see packing.py.
  const words = (text) => {
    const view = new DataView(bytes(text).buffer);
    return data.roles.map((_, i) => view.getUint16(2 * i, true));
  };
  const ranked = ({ means, ranks, others }) => {
    if (ranks) return words(ranks);
    const steps = words(means);
    const first = new Map();
    const downwards = steps.filter((step) => step !== 65535).sort((a, b) => b - a);
    downwards.forEach((step, i) => first.has(step) || first.set(step, i + 1));
    const found = steps.map((step) => first.get(step));
    for (const [head, rank] of Object.entries(others)) found[head] = rank;
    return found;
  };
  const unpacked = ({ low, step, reach, means, below, above }) => {
    const all = words(means);
    const mean = data.roles.map((_, i) => {
      return all[i] === 65535 ? NaN : low + step * all[i];
    });
    const [down, up] = [bytes(below), bytes(above)];
    return [mean, mean.map((m, i) => m - reach * down[i]), mean.map((m, i) => m + reach * up[i])];
  };
  const panel = [...document.querySelectorAll(".score")].map((row) => {
    const given = data.scores[row.dataset.score];
    return {
      parts: unpacked(given),
      ranks: ranked(given),
      output: row.querySelector("output"),
      svg: row.querySelector("svg"),
    };
  });
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("rx", 4);
  map.querySelector("svg").append(cursor);
  let selected = 0;

  const place = (line, from, to) => {
    line.setAttribute("x1", from);
    line.setAttribute("x2", to);
  };

  const show = (index) => {
    const roles = data.roles[index];
    const layer = data.layers[Math.floor(index / data.heads)];
    const head = index % data.heads;
    const group = Math.floor((head * data.kvHeads) / data.heads);
    document.getElementById("head").textContent = cells[index].id;
    const facts = document.getElementById("facts");
    const where = `layer ${layer}, head ${head}` + (data.kvHeads < data.heads ? `, KV head ${group}` : "");
    facts.replaceChildren(where + " · ");
    if (!roles.length) facts.append("no role");
    for (const role of roles) {
      const chip = chips.find((each) => each.dataset.role === role);
      facts.append(chip.firstElementChild.cloneNode(true), role.replaceAll("_", " ") + " ");
    }
    for (const { parts, ranks, output, svg } of panel) {
      const [mean, low, high] = parts.map((part) => part[index]);
      if (Number.isNaN(mean)) {
        output.textContent = "not known";
        svg.querySelector(".mark").setAttribute("hidden", "");
        continue;
      }
      output.textContent =
        `${mean.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}] · #${ranks[index]}`;
      const start = Number(svg.dataset.low);
      const end = Number(svg.dataset.high);
      const width = svg.viewBox.baseVal.width - 2;
      const x = (value) => 1 + (width * (Math.min(Math.max(value, start), end) - start)) / (end - start);
      const mark = svg.querySelector(".mark");
      mark.removeAttribute("hidden");
      place(mark.querySelector(".at"), x(mean), x(mean));
      place(mark.querySelector(".whisker"), x(low), x(high));
    }
  };

  const select = (index, address = true) => {
    selected = index;
    const box = cells[index].querySelector("rect");
    const size = Number(box.getAttribute("width")) + 4;
    cursor.setAttribute("x", box.getAttribute("x") - 2);
    cursor.setAttribute("y", box.getAttribute("y") - 2);
    cursor.setAttribute("width", size);
    cursor.setAttribute("height", size);
    show(index);
    if (address) history.replaceState(null, "", `#${cells[index].id}`);
  };

  const under = (event) => indexOf.get(event.target.closest(".cells > g"));
  map.addEventListener("mouseover", (event) => {
    const index = under(event);
    if (index !== undefined) show(index);
  });
  map.addEventListener("mouseleave", () => show(selected));
  map.addEventListener("click", (event) => {
    const index = under(event);
    if (index !== undefined) select(index);
  });
  map.addEventListener("keydown", (event) => {
    const { heads } = data;
    const head = selected % heads;
    const moves = {
      ArrowLeft: selected - heads,
      ArrowRight: selected + heads,
      ArrowUp: head > 0 ? selected - 1 : -1,
      ArrowDown: head < heads - 1 ? selected + 1 : -1,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    if (moves[event.key] in cells) select(moves[event.key]);
  });

  const filter = (wanted) => {
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", String(chip.dataset.role === wanted));
    }
    cells.forEach((cell, index) => {
      const roles = data.roles[index];
      const shown = wanted === null || (wanted ? roles.includes(wanted) : !roles.length);
      cell.classList.toggle("dim", !shown);
    });
  };
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      filter(chip.getAttribute("aria-pressed") === "true" ? null : chip.dataset.role);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") filter(null);
  });

  const sort = (table, column, button) => {
    const rows = [...table.tBodies[0].rows];
    const down = button.getAttribute("aria-sort") === "ascending";
    const value = (row) => Number(row.cells[column].dataset.value);
    rows.sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)));
    for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    button.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column, head));
    });
  }

  for (const block of document.querySelectorAll("pre.copy")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
    block.append(button);
  }

  const addressed = () => byName.get(location.hash.slice(1));
  addEventListener("hashchange", () => {
    if (addressed() !== undefined) select(addressed(), false);
  });
  select(addressed() ?? data.start, false);
})();
