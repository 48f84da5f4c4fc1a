"""Commands that read a run: show, clusters, agreement, compare, report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headscope.cli.base import Json, Run, app, at_least, print_json
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.headmap import HeadMap


@app.command()
def show(
    run: Run,
    head: Annotated[str | None, typer.Argument(help="A head, e.g. L17H3.")] = None,
    score: Annotated[str | None, typer.Option(help="Rank by this score or role.")] = None,
    top: Annotated[
        int | None, typer.Option(help="How many heads: by default 10, or 3 of each role.")
    ] = None,
    kv: Annotated[bool, typer.Option("--kv", help="Scores by KV head.")] = False,
    as_json: Json = False,
) -> None:
    """Print the head map: every role and its best heads, one score's ranking, or one head."""
    from headscope import terminal
    from headscope.headmap import HeadMap

    at_least("--top", top, 1)
    if head is not None and (kv or score is not None or top is not None):
        raise HeadscopeError(f"All of {head} is shown; leave --score, --top and --kv out.")
    if top is not None and score is None and (kv or as_json):
        raise HeadscopeError("--top needs a score to rank by; add --score.")
    head_map = HeadMap.load(run)
    if kv:
        table = head_map.kv_heads()
        if score is not None:
            name, up = head_map.score_of(score), head_map.lowest_first(score)
            table = table.sort_values(name, ascending=up, kind="stable").head(top or 10)
        if as_json:
            print_json(table.to_dict("records"))
        else:
            terminal.show_frame(table, f"{head_map.info.model.name}: scores by KV head")
    elif head is not None:
        if head in head_map.scores or head in head_map.rules():
            raise HeadscopeError(
                f"{head!r} is no head; `headscope show {run} --score {head}` ranks heads by it."
            )
        _show_head(head_map, head, as_json)
    elif score is not None:
        best, measured = head_map.top(score, top or 10), head_map.score_of(score)
        if as_json:
            print_json(best.to_dict("records"))
        else:
            short = best.rename(columns=lambda name: name.removeprefix(f"{measured}."))
            terminal.show_frame(short, f"{head_map.info.model.name}: top {len(best)} by {score}")
    elif as_json:
        print_json(head_map.roles().to_dict("records"))
    else:
        terminal.show_top(head_map, top or 3)


def _show_head(head_map: "HeadMap", head: str, as_json: bool) -> None:
    """One head: its roles, the evidence for each, and all its scores."""
    from headscope import printed, terminal

    found = head_map.explain(head)
    if not as_json:
        terminal.out.print(printed.explanation(found))
        return
    row = next(r for r in head_map.roles().to_dict("records") if r["name"] == found.name)
    for each in found.scores.to_dict("records"):
        name = each["score"]
        row |= {name: each["mean"], f"{name}.low": each["low"], f"{name}.high": each["high"]}
    print_json(row | {"evidence": found.table.to_dict("records")})


@app.command()
def clusters(
    run: Run,
    k: Annotated[
        int | None, typer.Option(help="How many; by default that of the best silhouette.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Heads that score alike, found without any rule: standardised scores, PCA, k-means."""
    from headscope import printed, terminal
    from headscope.headmap import HeadMap

    found = HeadMap.load(run).clusters(k)
    if not as_json:
        terminal.out.print(printed.clusters(found))
        return
    means = found.z.to_dict("index")
    print_json(
        {
            "k": found.k,
            "silhouette": found.silhouette,
            "tried": found.tried.to_dict("records"),
            "explained": found.explained,
            "constant": found.constant,
            "clusters": [
                row | {"z": means[row["cluster"]]} for row in found.described.to_dict("records")
            ],
            "heads": found.table.to_dict("records"),
        }
    )


@app.command()
def agreement(
    run: Run,
    k: Annotated[int, typer.Option(help="Heads of each score that should be the same.")] = 10,
    score: Annotated[str | None, typer.Option(help="All others beside this score.")] = None,
    as_json: Json = False,
) -> None:
    """Which scores of a run say the same: rank correlation, and overlap beside its chance level."""
    from headscope import printed, terminal
    from headscope.headmap import HeadMap

    found = HeadMap.load(run).agreement(k)
    if not as_json:
        terminal.out.print(printed.agreement(found, score))
        return
    pairs = found.pairs if score is None else found.beside(score)
    print_json(
        {
            "k": found.k,
            "heads": found.heads,
            "chance": found.chance,
            "constant": found.constant,
            "pairs": pairs.to_dict("records"),
        }
    )


@app.command()
def compare(
    first: Run,
    second: Run,
    k: Annotated[int, typer.Option(help="Heads of each map that should be the same.")] = 10,
    as_json: Json = False,
) -> None:
    """How far two runs agree: rank correlation and top-k overlap of every score."""
    from headscope import terminal
    from headscope.compare import compare as compare_maps
    from headscope.headmap import HeadMap

    comparison = compare_maps(HeadMap.load(first), HeadMap.load(second), k)
    if as_json:
        print_json(comparison.table.to_dict("records"))
    else:
        terminal.show_comparison(comparison, first, second)


@app.command()
def report(
    run: Run,
    beside: Annotated[
        Path | None, typer.Option(help="Another run, of this model or of any other.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file; RUN/report.html by default.")] = None,
) -> None:
    """Write one HTML file with all that a run's folder holds: the head map, its evidence and
    curves, causal tests, evals, profiles; works offline."""
    from headscope import terminal
    from headscope.headmap import HeadMap
    from headscope.viz.report import write_report
    from headscope.viz.run_results import results_in

    head_map = HeadMap.load(run)
    other = None if beside is None else HeadMap.load(beside)
    path = write_report(head_map, (), out or run / "report.html", results_in(run), other)
    terminal.say(f"Report: {path.resolve()}")
