"""Quality against cost as a page: every eval's chart, and what may be claimed."""

from headscope.sparsity.frontier import Pareto
from headscope.viz.figures import pareto
from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import INK


def pareto_page(found: Pareto) -> str:
    """One HTML document that needs nothing else."""
    title = f"{found.evaluation.model}: sparse profiles"
    body = el(
        "body",
        el("h1", title),
        Markup(pareto(found).svg()),
        el("ul", *(el("li", claim) for claim in found.claims())),
        style=f"font:14px/1.5 {FONT};max-width:62rem;margin:2rem auto;color:{INK['light']}",
    )
    head = el("head", Markup('<meta charset="utf-8">'), el("title", title))
    return "<!doctype html>\n" + el("html", head, body, lang="en")
