"""The commands that turn a finding into a profile: plan and pareto."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headscope.cli.base import (
    Device,
    Json,
    Lengths,
    Quiet,
    Run,
    Samples,
    Seed,
    Told,
    app,
    at_least,
    no_folder,
    print_json,
    resumable,
    typed,
)
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    import pandas as pd

    from headscope.evals.measured import Progress
    from headscope.headmap import HeadMap
    from headscope.model import HeadModel
    from headscope.patterns.rules import Rule
    from headscope.prompts.base import PromptFamily
    from headscope.sparsity.budget import Budget
    from headscope.sparsity.costs import Costs
    from headscope.sparsity.planned import Plan
    from headscope.sparsity.recalls import Recalls

Rules = Annotated[
    str | None,
    typer.Option(
        help='What heads may be given, e.g. "streaming:sink=4,window=64;full"; by default a sink '
        "of 4 and windows of 1/32 to 1/2 of the longest length, and full."
    ),
]
Granularity = Annotated[
    Literal["kv_head", "head"], typer.Option(help="What gets a rule of its own.")
]
Rows = Annotated[
    Literal["answer", "all"],
    typer.Option(help="Rows that recall is averaged over: the answer's, or 64 of all."),
]
Loss = Annotated[
    Literal["answer", "output", "recall"] | None,
    typer.Option(
        help="What is planned by: the answer's log-probability, what layers write, or attention "
        "outside the rule; answer where a gradient reaches the heads."
    ),
]
Over = Annotated[
    Literal["mean", "worst"], typer.Option(help="Of several lengths, which loss counts.")
]
Prompts = Annotated[
    str, typer.Option(help="A prompt family, or your own prompts with answers: a JSONL file.")
]


@app.command()
def plan(
    run: Run,
    budget: Annotated[
        str,
        typer.Option(
            help="density=0.5 (or 0.5), kv=0.5, latency=0.5 or decode_latency=0.5: a share of what "
            "the model takes without a profile."
        ),
    ] = "density=0.5",
    by: Annotated[
        str | None,
        typer.Option(help="Measure nothing: rank heads by this score or role of the run."),
    ] = None,
    rules: Rules = None,
    granularity: Granularity = "kv_head",
    loss: Loss = None,
    rows: Rows = "answer",
    over: Over = "mean",
    prompts: Prompts = "needle",
    lengths: Lengths = None,
    samples: Samples = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="The profile; RUN/profiles/BUDGET.json by default.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Told = "bars",
) -> None:
    """Give every head a rule, within a budget: what heads lose is measured once and kept."""
    from headscope import terminal
    from headscope.headmap import HeadMap
    from headscope.sparsity.budget import Budget
    from headscope.sparsity.planner import plan as make

    wanted = Budget.of(budget)  # said before a model is opened
    at_least("--samples", samples, 1)
    no_folder(out)
    head_map = HeadMap.load(run)
    settings = _Settings(run, head_map, rules, prompts, lengths, samples, rows, device)
    if by is not None:
        if loss is not None or rows != "answer" or over != "mean":
            raise HeadscopeError("With --by nothing is measured; leave --loss, --rows, --over out.")
        found = settings.by_score(by, wanted, granularity)
    else:
        with resumable(settings.begun), terminal.bars(quiet, progress) as bars:
            recalls = settings.recalls(bars.family)
            costs = settings.costs(recalls, bars.family) if wanted.kind == "latency" else None
        found = make(recalls, wanted, granularity=granularity, loss=loss, over=over, costs=costs)
    path = out or run / "profiles" / f"{_named(wanted, by, granularity)}.json"
    found.profile.save(path)
    _show(found, path, head_map, as_json)


def _named(budget: "Budget", by: str | None, granularity: str) -> str:
    parts = [budget.label.replace("=", "-"), *([by] if by else []), granularity]
    return "-".join(parts)


def _show(found: "Plan", path: Path, head_map: "HeadMap", as_json: bool) -> None:
    from headscope import terminal

    evaluate = (
        f"headscope eval {head_map.info.model.spec} --tasks needle "
        f"--with sparse_attention:profile={path}"
    )
    export = f"headscope export {path} --to FORMAT --out FILE"
    if as_json:
        plain = found.model_dump(mode="json", exclude={"profile"})
        rules = found.table().to_dict("records")
        print_json(plain | {"gap": found.gap, "rules": rules, "saved": str(path)})
        return
    name = found.profile.model.name
    columns = [column for column in found.table().columns if column != "first"]
    terminal.show_frame(found.table(), f"{name}: rules of heads", columns)
    terminal.show_frame(found.costs(), f"{name}: what the profile takes (bytes of bfloat16)")
    for sentence in found.sentences():
        terminal.say(sentence)
    terminal.say(f"Saved to {path}. Next: {evaluate}")
    terminal.say(f"or: {export}")


@app.command()
def pareto(
    run: Run,
    budgets: Annotated[
        str, typer.Option(help="Shares of density, joined by commas; or kv=0.3,kv=0.5.")
    ] = "0.3,0.5,0.7",
    task: Annotated[str, typer.Option(help="Evals, joined by commas.")] = "needle",
    score: Annotated[
        str | None, typer.Option(help="A score of the run to compare with, as DuoAttention does.")
    ] = None,
    randoms: Annotated[int, typer.Option(help="Random profiles; 19 allow p = 0.05.")] = 19,
    questions: Annotated[int | None, typer.Option(help="Questions of each eval.")] = None,
    rules: Rules = None,
    granularity: Granularity = "kv_head",
    loss: Loss = None,
    rows: Rows = "answer",
    over: Over = "mean",
    prompts: Prompts = "needle",
    lengths: Lengths = None,
    samples: Samples = None,
    device: Device = None,
    figure: Annotated[
        Path | None, typer.Option(help="A chart: .svg of the first eval, .html of all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The result; RUN/profiles/pareto-SETTINGS.json by default.")
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate planned profiles beside simpler and random ones of equal cost."""
    from headscope import storage, terminal
    from headscope.config import split_names
    from headscope.evals.evaluate import chosen_evals
    from headscope.headmap import HeadMap
    from headscope.places import digest
    from headscope.sparsity.budget import Budget
    from headscope.sparsity.frontier import pareto as compare
    from headscope.viz import figures
    from headscope.viz.pareto_page import pareto_page

    for flag, value, least in (
        ("--samples", samples, 1), ("--questions", questions, 1), ("--randoms", randoms, 0),
        ("--seed", seed, 0),
    ):  # fmt: skip
        at_least(flag, value, least)
    no_folder(out)
    if figure is not None and figure.suffix not in (".svg", ".html"):
        raise HeadscopeError(f"--figure takes a file that ends in .svg or .html, not {figure}.")
    wanted = [Budget.of(each) for each in split_names(budgets)]
    names = split_names(task)
    chosen_evals(names, None, questions, seed)  # a name that there is not, before a model is opened
    head_map = HeadMap.load(run)
    if score is None and "duo_gate" in head_map.scores:
        score = "duo_gate"
    if score is not None:
        head_map.score_of(score)
    settings = _Settings(run, head_map, rules, prompts, lengths, samples, rows, device)
    asked = [
        budgets, names, score, randoms, questions, granularity, loss, over, seed, settings.digest,
    ]  # fmt: skip
    path = out or run / "profiles" / f"pareto-{digest(repr(asked))}.json"
    with resumable(settings.begun), terminal.bars(quiet) as bars:
        recalls = settings.recalls(bars.family)
        found = compare(
            settings.model(),
            None if score is None else head_map,
            recalls,
            wanted,
            names,
            randoms=randoms,
            score=score or "",
            loss=loss,
            over=over,
            granularity=granularity,
            samples=questions,
            seed=seed or 0,
            out=path,
            command=typed(),
            progress=bars.family,
        )
    if figure is not None:
        svg = figure.suffix == ".svg"
        drawn = figures.pareto(found, 0).svg() if svg else pareto_page(found)
        storage.write(figure, drawn.encode())
    tasks = range(len(found.evaluation.tasks))
    if as_json:
        print_json(
            {
                "claims": found.claims(),
                "saved": str(path),
                "evals": [
                    {
                        "task": found.evaluation.tasks[i].task,
                        "table": found.table(i).to_dict("records"),
                        "differences": found.differences(i).to_dict("records"),
                    }
                    for i in tasks
                ],
            }
        )
        return
    for i in tasks:
        measured = found.evaluation.tasks[i]
        about = f"{found.evaluation.model}, {measured.done} questions of {measured.task}"
        quality = _with_intervals(found.table(i), {"of_dense": "of dense", "change": "nats"})
        terminal.show_frame(quality, about, ("budget", "profile", "share", "of dense", "nats"))
        less = _with_intervals(found.differences(i), {"exact": "exact", "value": "nats"})
        columns = ("budget", "other", "exact", "nats", "p")
        terminal.show_frame(less, f"{about}: planner less the others", columns)
    for claim in found.claims():
        terminal.say(claim)
    terminal.say(f"Saved to {path}.")


def _with_intervals(table: "pd.DataFrame", columns: dict[str, str]) -> "pd.DataFrame":
    """Numbers and their intervals in one column each, so that rows fit a terminal.

    Args:
        columns: by their name, the name that they get.
    """
    from headscope.evals.worded import with_interval

    rows = table.to_dict("records")
    joined = {
        name: ["–" if row[of] != row[of] else with_interval(row, of) for row in rows]
        for of, name in columns.items()
    }
    return table.assign(**joined)


class _Settings:
    """What both commands measure, and where in the run's folder it is kept."""

    def __init__(
        self,
        run: Path,
        head_map: "HeadMap",
        rules: str | None,
        prompts: str,
        lengths: str | None,
        samples: int | None,
        rows: Any,
        device: str | None,
    ) -> None:
        from headscope import storage
        from headscope.config import as_integers
        from headscope.places import digest
        from headscope.sparsity.candidates import parsed_rules

        self.run, self.head_map, self.device, self.rows = run, head_map, device, rows
        self.rules: tuple[Rule, ...] | None = None if rules is None else parsed_rules(rules)
        self.lengths = as_integers(lengths, "--lengths")
        self.samples = samples
        self.prompts = _family(prompts, samples)
        asked = (head_map.info.model.fingerprint, self.rules, self.prompts, self.lengths, rows)
        file = storage.read(Path(prompts)) if prompts.endswith(".jsonl") else b""
        self.digest = digest(repr((*asked, samples, file)))
        self._model: HeadModel | None = None

    def model(self) -> "HeadModel":
        """The run's model, opened once."""
        from headscope.places import reopened

        if self._model is None:
            self._model = reopened(self.run, self.head_map, self.device)
        return self._model

    @property
    def path(self) -> Path:
        return self.run / "profiles" / f"recalls-{self.digest}.safetensors"

    def begun(self) -> bool:
        """Whether anything was saved that a second run goes on from."""
        return self.path.exists()

    def recalls(self, progress: "Progress") -> "Recalls":
        """As kept, without opening the model, or measured."""
        from headscope.sparsity.recall import measure_recall
        from headscope.sparsity.recalls import Recalls

        if self.path.exists():
            kept = Recalls.load(self.path)
            if kept.complete:
                return kept
        return measure_recall(
            self.model(),
            self.rules,
            self.prompts,
            lengths=self.lengths,
            samples=self.samples,
            rows=self.rows,
            out=self.path,
            progress=progress,
        )

    def costs(self, recalls: "Recalls", progress: "Progress") -> "Costs":
        """Times at the same lengths; of another device or number of threads they are others."""
        import torch

        from headscope.places import digest
        from headscope.sparsity.costs import measure_costs

        here = (self.digest, str(self.model().device), torch.get_num_threads())
        path = self.run / "profiles" / f"costs-{digest(repr(here))}.json"
        return measure_costs(
            self.model(), recalls.rules, recalls.lengths, out=path, progress=progress
        )

    def by_score(self, score: str, budget: "Budget", granularity: Any) -> "Plan":
        """Nothing measured: heads ranked by a score of the run."""
        from headscope.patterns.full import Full
        from headscope.sparsity.planner import plan_by_score
        from headscope.sparsity.recall import own_lengths

        streaming = [rule for rule in self.rules or () if rule != Full()]
        if len(streaming) > 1:
            raise HeadscopeError("With --by one rule is given to heads; name one with --rules.")
        limit = self.head_map.info.model.context_length
        return plan_by_score(
            self.head_map,
            score,
            budget,
            lengths=self.lengths or own_lengths(self.prompts, limit) or (2048,),
            rule=streaming[0] if streaming else None,
            granularity=granularity,
        )


def _family(name: str, samples: int | None) -> "PromptFamily":
    from headscope.catalog import families
    from headscope.prompts.jsonl import Jsonl
    from headscope.registry import find

    if name.endswith(".jsonl"):
        return Jsonl(path=name, samples=samples or 0)
    return find(families(), name, "prompt family")()
