"""How much room words take: no font is measured, so that a picture is the same everywhere."""

from headscope.viz.markup import Markup, el

_WIDE = 0.56  # of the font size, of a letter at most times


def width(text: str, size: float) -> float:
    """Px that a line of text takes, about."""
    return sum(2.0 if ord(c) >= 0x1100 else 1.0 for c in text) * _WIDE * size


def clipped(text: str, size: float, room: float) -> str:
    """A text that fits, its middle left out where it must."""
    if width(text, size) <= room:
        return text
    letters = max(3, int(room / (_WIDE * size)))
    return f"{text[: (letters + 1) // 2 - 1]}…{text[len(text) - letters // 2 :]}"


def wrapped(text: str, size: float, room: float) -> list[str]:
    """A text in lines."""
    lines: list[str] = []
    for word in text.split():
        word = clipped(word, size, room)
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def lines_of(
    text: str, x: float, y: float, size: float, room: float, **look: str | int | float
) -> tuple[Markup, float]:
    """A wrapped text as elements, and where it ends."""
    lines = wrapped(text, size, room)
    pitch = round(size * 1.35)
    drawn = [
        el("text", line, x=x, y=y + size + pitch * i, font_size=size, **look)
        for i, line in enumerate(lines)
    ]
    return Markup("".join(drawn)), y + pitch * len(lines)
