"""Matrices with too many cells for elements, as an image inside the SVG."""

import zlib
from base64 import b64encode
from struct import pack

import numpy as np

from headscope.viz.markup import Markup, el
from headscope.viz.paint import Theme
from headscope.viz.palette import Theme as Surface
from headscope.viz.ramps import Ramp

SHADES = 32  # of a continuous ramp: more are not told apart, and would not compress
MOST = 512  # cells on a side


def image(values: np.ndarray, ramp: Ramp, theme: Theme, place: dict[str, float]) -> Markup:
    """A matrix as one image; in the theme "auto" one for either surface, of which one is shown."""
    if theme != "auto":
        return _image(values, ramp, theme, place, None)
    light = _image(values, ramp, "light", place, "hs-light")
    return Markup(light + _image(values, ramp, "dark", place, "hs-dark"))


def _image(
    values: np.ndarray, ramp: Ramp, theme: Surface, place: dict[str, float], class_: str | None
) -> Markup:
    shown = None if class_ != "hs-dark" else "none"  # where style sheets are ignored
    return el(
        "image",
        href=f"data:image/png;base64,{b64encode(_png(values, ramp, theme)).decode()}",
        preserveAspectRatio="none",
        image_rendering="optimizeSpeed",
        style="image-rendering:pixelated",
        class_=class_,
        display=shown,
        **place,
    )


def _png(values: np.ndarray, ramp: Ramp, theme: Surface) -> bytes:
    """8 bits a cell and a table of colours, whose last one is that of empty cells."""
    shades = np.arange(len(ramp.stops)) if ramp.stepped else _shades(ramp)
    known = np.isfinite(values)
    filled = np.where(known, values, shades[0])
    if ramp.stepped:
        index = filled.astype(int)
    else:
        middles = (shades[1:] + shades[:-1]) / 2
        index = np.searchsorted(middles, filled)
    index = np.where(known, index, len(shades)).astype(np.uint8)
    table = ramp.colours(np.append(shades, np.nan), theme)
    high, wide = index.shape
    rows = np.concatenate([np.zeros((high, 1), np.uint8), index], axis=1)
    head = pack(">IIBBBBB", wide, high, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", head),
        (b"PLTE", table.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def _shades(ramp: Ramp) -> np.ndarray:
    """Values whose colours are evenly spaced along the ramp."""
    even = np.linspace(0, len(ramp.stops) - 1, SHADES)
    way = np.interp(even, np.arange(len(ramp.stops)), ramp.places)
    return ramp.low + way * (ramp.high - ramp.low)
