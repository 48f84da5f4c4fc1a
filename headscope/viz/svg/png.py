"""Matrices with too many cells for elements, as an image inside the SVG."""

import zlib
from base64 import b64encode
from struct import pack

import numpy as np

from headscope.viz.markup import Markup, el
from headscope.viz.paint import Theme
from headscope.viz.palette import Theme as Surface
from headscope.viz.ramps import Ramp

MOST = 1024  # px on a side


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
    content = b64encode(_png(values, ramp, theme, place["width"])).decode()
    return el(
        "image",
        href=f"data:image/png;base64,{content}",
        preserveAspectRatio="none",
        image_rendering="optimizeSpeed",
        style="image-rendering:pixelated",
        class_=class_,
        display=shown,
        **place,
    )


def _png(values: np.ndarray, ramp: Ramp, theme: Surface, wide: float) -> bytes:
    """8 bits a cell and a table of colours, whose last one is that of empty cells."""
    index = ramp.nearest(values).astype(np.uint8)
    # Not every reader keeps cells sharp where it has to enlarge them.
    larger = max(1, min(MOST // max(index.shape), round(wide / index.shape[1])))
    index = index.repeat(larger, 0).repeat(larger, 1)
    table = ramp.colours(np.append(ramp.shades(), np.nan), theme)
    rows = np.concatenate([np.zeros((len(index), 1), np.uint8), index], axis=1)
    parts = (
        (b"IHDR", pack(">IIBBBBB", index.shape[1], len(index), 8, 3, 0, 0, 0)),
        (b"PLTE", table.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
