"""The command that writes profiles and scores for others: export."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from headscope.cli.base import Json, app, print_json
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.export.profiles.base import ProfileFormat
    from headscope.sparsity.profile import SparseProfile

SCORES = "retrieval_head"

_COST_AT = 32768  # tokens that a merge is priced at where no length is given


class _Listing(TyperCommand):
    """The command whose own help, and nobody else's, reads the registry and so loads torch."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from headscope.catalog import profile_formats

        names = ", ".join(f"{n} (by {kind.granularity})" for n, kind in profile_formats().items())
        for option in self.params:
            if option.name == "to":
                option.help = f"{names}; of a run's scores {SCORES}."  # pyright: ignore
        super().format_help(ctx, formatter)


@app.command(cls=_Listing)
def export(
    profile_or_run: Annotated[
        str, typer.Argument(help="A profile; for scores a run folder; with --from others' files.")
    ],
    to: Annotated[str, typer.Option(help="The format.")],
    out: Annotated[Path, typer.Option(help="The file, or for several the new folder.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="One rule for each KV head, covering its query heads'.")
    ] = False,
    length: Annotated[
        int | None, typer.Option(help="Tokens that full heads, or blocks, are written for.")
    ] = None,
    block: Annotated[int | None, typer.Option(help="Tokens of a block.")] = None,
    ranks: Annotated[int | None, typer.Option(help="Of tensor parallelism, for rtp_llm.")] = None,
    threshold: Annotated[
        int | None, typer.Option(help="Prompts that run in full up to it, for rtp_llm.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="A score of the run, or a role.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="What the files are, if no profile.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="A profile of the model that the files are for.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Share of streaming heads, where duo_attention files lack.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a profile for the software that serves it, or a run's scores for others' tools."""
    given = {"length": length, "block": block, "ranks": ranks, "threshold": threshold}
    if to == SCORES:
        alone = merge or from_ or like or sparsity or any(v is not None for v in given.values())
        if alone or score is None:
            raise HeadscopeError(f"--to {SCORES} takes a run, --score and --out, and no more.")
        _scores(Path(profile_or_run), score, out, as_json)
        return
    if score is not None:
        raise HeadscopeError(f"--score is for --to {SCORES}; leave it out.")
    kind = _kind(to)
    known = {field.name for field in fields(kind)}
    priced = {"length"} if merge else set()
    for name, value in given.items():
        if value is not None and name not in known | priced:
            raise HeadscopeError(f"{to} has no {name}; leave --{name} out.")
    if out.resolve() == Path(profile_or_run).resolve():
        raise HeadscopeError(f"{out} is what is exported; give another --out, or it would be lost.")
    format_ = kind(**{n: v for n, v in given.items() if v is not None and n in known})
    profile = _opened(profile_or_run, from_, like, sparsity)
    cost = None
    if merge:
        from headscope.sparsity.kv_view import kv_view

        format_.check_merge()
        view = kv_view(profile)
        profile, cost = view.profile, view.cost(_COST_AT if length is None else length)
    paths = format_.write(profile, out)
    if not _alike(format_.read(out, profile), profile):
        raise HeadscopeError(
            f"{out} does not read back as the profile; do not use it, and report this as a bug."
        )
    told = format_.told(profile)
    if as_json:
        print_json(
            {
                "files": list(map(str, paths)),
                "format": to,
                "granularity": kind.granularity,
                "loads": kind.loads,
                "loses": kind.loses,
                "pass": told,
                "merge": None
                if cost is None
                else {
                    "n": cost.n,
                    "density": cost.density,
                    "kv_bytes": cost.kv_bytes,
                    "widened": cost.widened,
                },
            }
        )
        return
    from headscope import terminal

    if cost is not None:
        terminal.say(str(cost))
    terminal.say(f"Wrote {', '.join(map(str, paths))}; read back, the rules are the same.")
    terminal.say(f"Loaded by: {kind.loads}")
    terminal.say(f"What is different there: {kind.loses}")
    if told:
        terminal.say(f"To use it: {told}")


def _scores(run: Path, score: str, out: Path, as_json: bool) -> None:
    from headscope import terminal
    from headscope.export.writing import write_retrieval_head
    from headscope.headmap import HeadMap

    path = write_retrieval_head(HeadMap.load(run), score, out)
    if as_json:
        print_json({"files": [str(path)], "format": SCORES, "score": score})
    else:
        terminal.say(f"Wrote {path}: {score} of every query head, prompt by prompt.")


def _kind(name: str) -> "type[ProfileFormat]":
    from headscope.catalog import profile_formats
    from headscope.registry import find

    return find(profile_formats(), name, "format of profiles")


def _opened(
    given: str, from_: str | None, like: Path | None, sparsity: float | None
) -> "SparseProfile":
    from headscope.sparsity.profile import SparseProfile

    path = Path(given)
    if from_ is None:
        if like is not None or sparsity is not None:
            raise HeadscopeError("--like and --sparsity tell about files named with --from.")
        if (path / "run.json").exists():
            raise HeadscopeError(
                f"{path} is a run; make a profile of it first, or export its scores with "
                f"--to {SCORES}."
            )
        return SparseProfile.load(path)
    if like is None:
        raise HeadscopeError(
            "Files of others do not say all about their model; name a profile of it with --like."
        )
    kind = _kind(from_)
    if sparsity is not None and "sparsity" not in {field.name for field in fields(kind)}:
        raise HeadscopeError(f"{from_} has no sparsity; leave --sparsity out.")
    numbers: dict[str, Any] = {} if sparsity is None else {"sparsity": sparsity}
    return kind(**numbers).read(path, SparseProfile.load(like))


def _alike(one: "SparseProfile", other: "SparseProfile") -> bool:
    return all(one.of_layer(layer) == other.of_layer(layer) for layer in other.model.layers)
