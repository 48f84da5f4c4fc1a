"""Scripts that look for what cannot be read, and for controls without a name."""

UNREADABLE = """() => {
  const channels = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length && (colour.length < 4 || colour[3] > 0.95)) return colour;
    }
    return [255, 255, 255];
  };
  const passed = 'svg, option, :disabled, .unseen, .skip';
  const bad = [];
  for (const e of document.querySelectorAll('#app *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(passed)) continue;
    const colour = getComputedStyle(e).color;
    if (colour.startsWith('color(')) continue;
    const [a, b] = [light(channels(colour)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const what = `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`;
    if (ratio < 4.5) bad.push(`${what}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""

NAMELESS = """() => {
  const all = [...document.querySelectorAll('button, select, input, textarea, a, img')];
  return all.filter((e) => {
    if (!e.checkVisibility() || e.closest('.modebar')) return false;
    const labels = e.labels ? [...e.labels].map((l) => l.textContent).join('') : '';
    const names = [e.textContent, e.alt, e.ariaLabel, e.title, labels];
    return !names.some((n) => n && n.trim()) && !e.getAttribute('aria-labelledby');
  }).map((e) => e.outerHTML.slice(0, 120));
}"""
