"""Text for plotly, which reads tags, entities and templates in whatever it is given."""

from headscope.viz.markup import text


def safe(value: str) -> str:
    """A text as labels and titles show it, letter by letter."""
    # A dollar at either end would make a formula of it where MathJax is loaded.
    return text(value).replace("$", "&#36;")


def templated(value: str) -> str:
    """The same within a template, where braces after a percent sign stand for data."""
    return safe(value).replace("%", "&#37;")


def lines(value: str) -> str:
    """The same for a text of several lines."""
    return "<br>".join(safe(line) for line in value.split("\n"))
