"""A text whose tokens are shaded by where a head looks; click one to look from there."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.heads import Head, label, parse_heads
from headscope.viz import palette
from headscope.viz.chart import check_theme
from headscope.viz.head_patterns import Patterns
from headscope.viz.markup import Markup, el
from headscope.viz.paint import DARK, FONT, Theme
from headscope.viz.palette import TOWARDS, Pair
from headscope.viz.palette import Theme as Surface
from headscope.viz.pooling import max_pool, quantised, restored, square

MOST = 256  # tokens, or runs of tokens, that can be clicked
_BYTES = 210_000  # of all weights, as they are written
_FOLDER = Path(__file__).parent.parent
_COLOURS = {
    "surface": Pair.named(palette.SURFACE),
    "ink": Pair.named(palette.INK),
    "muted": Pair.named(palette.MUTED),
    "line": Pair.named(palette.LINE),
    "shade": Pair.of(TOWARDS),
}


def text_attention(found: Patterns, heads: Sequence[Head | str] | None = None) -> "TextAttention":
    """A text to click in.

    Args:
        found: patterns, as `headscope.viz.patterns` gives them.
        heads: which heads can be chosen; as many as there is room for if left out.

    Raises:
        HeadscopeError: a head was not computed, or the heads would make more than 300 kB.
    """
    size = square(found.squares, MOST)
    squares = -(-found.squares // size)
    room = max(1, _BYTES // (4 * (squares * (squares + 1) // 2) // 3 + 4))
    chosen = list(found.weights)[:room] if heads is None else list(parse_heads(heads))
    if not chosen:
        raise HeadscopeError("Name one head at least, or leave heads out for all that there are.")
    if len(chosen) > room:
        raise HeadscopeError(
            f"{len(chosen)} heads over {len(found.tokens)} tokens would make a page of more than "
            f"300 kB; choose {room} of them, or a shorter text."
        )
    run = found.size * size
    texts = tuple("".join(found.tokens[i : i + run]) for i in range(0, len(found.tokens), run))
    weights = tuple(quantised(np.tril(max_pool(found[head], size))) for head in chosen)
    return TextAttention(found.model, texts, run, tuple(chosen), weights)


@dataclass(frozen=True, eq=False)
class TextAttention:
    """A text and where heads look in it, as HTML that needs nothing else.

    Attributes:
        model: its short name.
        texts: what can be clicked: tokens, or runs of `run` tokens in long texts.
        heads: that can be chosen.
        weights: for each, [query, key] as `headscope.viz.pooling.quantised` gives them.
    """

    model: str
    texts: tuple[str, ...]
    run: int
    heads: tuple[Head, ...]
    weights: tuple[np.ndarray, ...]

    @property
    def name(self) -> str:
        return f"Where heads of {self.model} look"

    def html(self, theme: Theme = "light") -> str:
        """A part of a page, with its own style and script; without script it shows where the first
        head looks from the last token.

        Args:
            theme: "light", "dark", or "auto" for the reader's own.
        """
        check_theme(theme, ("light", "dark", "auto"))
        note = (
            "Click a token, or walk with the arrow keys. The fuller a shade, the more attention; "
        )
        note += "several heads are averaged."
        if self.run > 1:
            note += f" Each piece is {self.run} tokens, with the highest weight among them."
        return el(
            "div",
            el("style", _styles(theme)),
            el("p", self.name, class_="hs-name"),
            self._heads(),
            self._tokens(),
            el("p", self._said(), class_="hs-said", aria_live="polite"),
            el("p", note, class_="hs-note"),
            el("script", Markup((_FOLDER / "text_attention.js").read_text("utf-8"))),
            class_="hs-text",
            role="group",
            aria_label=self.name,
            data_weights=" ".join(_packed(each) for each in self.weights),
        )

    def save(self, path: str | PathLike[str], theme: Theme = "auto") -> Path:
        """Write it as an .html file that needs no network.

        Raises:
            HeadscopeError: the name ends otherwise, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise HeadscopeError(f"{path.name} cannot hold a text to click in; end it in .html.")
        head = el("head", el("meta", charset="utf-8"), el("title", self.name),
                  el("style", _ground(theme)),
                  el("meta", name="viewport", content="width=device-width"))  # fmt: skip
        body = el("body", Markup(self.html(theme)))
        page = el("html", head, body, lang="en")
        storage.write(path, f"<!doctype html>\n{page}".encode())
        return path

    def _repr_html_(self) -> str:
        return self.html()

    def _heads(self) -> Markup:
        buttons = [
            el("button", label(head), type="button", aria_pressed=str(i == 0).lower(), data_head=i)
            for i, head in enumerate(self.heads)
        ]
        turn = el("button", "who looks here", type="button", aria_pressed="false", data_turn="",
                  title="Shade by who looks at a token, instead of where it looks")  # fmt: skip
        return el("div", *buttons, turn, role="toolbar", aria_label="Heads", hidden="")

    def _tokens(self) -> Markup:
        last = len(self.texts) - 1
        shades = np.sqrt(restored(self.weights[0][last]))
        options = [
            el("span", _shown(text), role="option", tabindex="0" if i == last else "-1",
               aria_selected=str(i == last).lower(), style=f"--w:{shades[i]:.3f}")
            for i, text in enumerate(self.texts)
        ]  # fmt: skip
        return el("div", *options, role="listbox", aria_label="Tokens", lang="")

    def _said(self) -> str:
        row = restored(self.weights[0][-1])
        best = [i for i in np.argsort(-row, kind="stable")[:5] if row[i] >= 0.005]
        looks = ", ".join(f"“{_shown(self.texts[i]).strip()}” {100 * row[i]:.0f} %" for i in best)
        last = _shown(self.texts[-1]).strip()
        return f"{label(self.heads[0])}: from “{last}” to {looks or 'nowhere'}."


def _shown(text: str) -> str:
    """A token as it is read; an empty one and the end of a line can still be clicked."""
    return text.replace("\r", "").replace("\n", "↵\n") or "∅"


def _packed(weights: np.ndarray) -> str:
    """Row by row what lies below the diagonal and on it."""
    return b64encode(weights[np.tril_indices_from(weights)].tobytes()).decode()


def _ground(theme: Theme) -> Markup:
    surface = _COLOURS["surface"]
    written = f"body{{margin:0;background:{surface.on('dark' if theme == 'dark' else 'light')}}}"
    if theme == "auto":
        written += f"{DARK}{{body{{background:{surface.dark}}}}}"
    return Markup(written)


def _styles(theme: Theme) -> Markup:
    written = (_FOLDER / "text_attention.css").read_text("utf-8").replace("@font", FONT)
    surface: Surface = "dark" if theme == "dark" else "light"
    for name, pair in _COLOURS.items():
        written = written.replace(f"@{name}", pair.on(surface))
    if theme == "auto":
        dark = "".join(f"--{name}:{pair.dark};" for name, pair in _COLOURS.items())
        written += f"{DARK}{{.hs-text{{{dark}}}}}"
    return Markup(written)
