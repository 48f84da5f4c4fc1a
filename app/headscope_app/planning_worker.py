"""The process that plans: it has torch, and no model."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from headscope.bench.result import Bench
from headscope.catalog import evals, probes, profile_formats
from headscope.errors import HeadscopeError
from headscope.export.profiles.base import ProfileFormat
from headscope.headmap import HeadMap
from headscope.patterns.streaming import Streaming
from headscope.registry import find
from headscope.sparsity.budget import Budget
from headscope.sparsity.costs import Costs
from headscope.sparsity.kv_view import kv_view
from headscope.sparsity.planned import Plan
from headscope.sparsity.planner import plan, plan_by_score
from headscope.sparsity.profile import SparseProfile, check_length
from headscope.sparsity.recalls import LOSSES, Recalls
from headscope_app.answering import answer, dies_first, limit_memory
from headscope_app.kept_files import KeptFiles
from headscope_app.speeds import speed

_KEPT = 16  # files that stay in memory
_Read = TypeVar("_Read")


class Planner:
    """Answers requests of `headscope_app.planning`; files are read once while they stay."""

    def __init__(self) -> None:
        self._files = KeptFiles(_KEPT)

    def handle(self, request: dict[str, Any]) -> tuple[Any, Sequence[np.ndarray]]:
        match request["do"]:
            case "catalogue":
                return _catalogue(), []
            case "recalls":
                return [self._described(path) for path in request["paths"]], []
            case "plan":
                return self._planned(request), []
            case "formats":
                return _formats(SparseProfile.model_validate_json(request["profile"]), request), []
            case "export":
                return _exported(SparseProfile.model_validate_json(request["profile"]), request)
        raise HeadscopeError(f"Nothing here does {request['do']!r}.")

    def _read(self, load: Callable[[Path], _Read], path: str) -> _Read:
        return self._files.read(path, load, "choose again")

    def _sound(
        self, load: Callable[[Path], _Read], paths: Sequence[str]
    ) -> tuple[list[_Read], list[str]]:
        """The files that can be read, and a sentence for each other: times only add to a plan."""
        found, said = [], []
        for path in paths:
            try:
                found.append(self._read(load, path))
            except HeadscopeError:
                said.append(f"{Path(path).name} is damaged or gone, and was left out.")
        return found, said

    def _described(self, path: str) -> dict[str, Any]:
        """What a file of losses holds, or in `problem` why it cannot be planned with."""
        try:
            found = self._read(Recalls.load, path)
        except HeadscopeError as error:
            return {"problem": str(error)}
        problem = ""
        if not found.complete:
            problem = f"{found.done} of {len(found.about.digests)} prompts are measured."
        return {
            "problem": problem,
            "fingerprint": found.model.fingerprint,
            "rules": [str(rule) for rule in found.rules],
            "lengths": list(found.lengths),
            "prompts": len(found.about.digests),
            "losses": {name: said for name, said in LOSSES.items() if name in found.losses},
            "best": found.best_loss,
        }

    def _planned(self, request: dict[str, Any]) -> dict[str, Any]:
        n = request["n"]
        check_length(n)
        found = None if "saved" in request else self._plan(request)
        profile = (
            self._read(SparseProfile.load, request["saved"]) if found is None else found.profile
        )
        benches, damaged = self._sound(Bench.load, request["benches"])
        costs, unread = self._sound(Costs.load, request["costs"])
        names = [str(rule) for rule in profile._rules]
        full = len(profile.model.layers) * profile.model.n_kv_heads * n
        known = all(rule.density(n) is not None for rule in profile._used)
        return {
            "profile": profile.model_dump_json(),
            "names": names,
            "shares": [rule.density(n) for rule in profile._rules],
            "grid": [list(row) for row in profile.heads],
            "layers": list(profile.model.layers),
            "n_kv_heads": profile.model.n_kv_heads,
            "n": n,
            "density": profile.density(n) if known else None,
            "held": int(profile.held_keys(n).sum()) / full,
            "kv_bytes": profile.kv_bytes(n),
            "full_bytes": full * 2 * profile.model.d_head * 2,
            "speeds": [
                asdict(speed(profile, n, phase, benches)) for phase in ("prefill", "decode")
            ],
            "timed": _timed(costs, profile, n),
            "plan": None if found is None else found.model_dump(mode="json", exclude={"profile"}),
            "sentences": [
                *(_noted(profile) if found is None else found.sentences()),
                *damaged,
                *unread,
            ],
        }

    def _plan(self, request: dict[str, Any]) -> Plan:
        budget = Budget.of(request["budget"])
        if "recalls" in request:
            recalls = self._read(Recalls.load, request["recalls"])
            rules = [r for r in recalls.rules if str(r) in request["rules"]] or None
            return plan(
                recalls,
                budget,
                granularity=request["granularity"],
                rules=rules,
                loss=request["loss"] or None,
            )
        head_map = self._read(HeadMap.load, request["run"])
        return plan_by_score(
            head_map,
            request["score"],
            budget,
            lengths=[request["n"]],
            rule=Streaming(request["sink"], request["window"]),
            granularity=request["granularity"],
        )


def _timed(measured: Sequence[Costs], profile: SparseProfile, n: int) -> list[dict[str, Any]]:
    """Shares of the time of attention, by costs that were measured with these rules and n."""
    rows = []
    for costs in measured:
        for phase in ("prefill", "decode"):
            try:
                shares = costs.shares(profile.model, profile._rules, [n], phase)[0]
            except HeadscopeError:
                continue  # they are of other rules, another length or other weights
            group = profile.model.group
            used = [
                shares[row, rules[kv * group]]
                for row, rules in enumerate(profile.heads)
                for kv in range(profile.model.n_kv_heads)
            ]
            threads = f", {costs.threads} threads" if costs.device == "cpu" else ""
            rows.append(
                {"phase": phase, "share": float(np.mean(used)),
                 "where": f"{costs.device} in {costs.dtype}{threads}"}
            )  # fmt: skip
    return rows


def _noted(profile: SparseProfile) -> list[str]:
    notes = ", ".join(f"{name} {value}" for name, value in profile.notes.items())
    return [f"A saved profile of {profile.model.name}{f': {notes}' if notes else ''}."]


def _catalogue() -> dict[str, Any]:
    """Probes and evals, by name what they do."""
    listed = {
        "probes": {name: (kind, kind.cost) for name, kind in probes().items()},
        "evals": {name: (kind, "") for name, kind in evals().items()},
    }
    return {
        what: {
            name: {
                "does": " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split()),
                "cost": str(cost),
            }
            for name, (kind, cost) in kinds.items()
        }
        for what, kinds in listed.items()
    }


def _made(kind: type[ProfileFormat], request: dict[str, Any]) -> ProfileFormat:
    """A format with what it has to be told of: a length that it cannot do without, and ranks."""
    known: dict[str, Any] = kind.__dataclass_fields__
    given: dict[str, Any] = {}
    if "length" in known and known["length"].default is None:
        given["length"] = request["n"]
    if "ranks" in known:
        given["ranks"] = request["ranks"]
    return kind(**given)


def _merged(profile: SparseProfile, kind: type[ProfileFormat]) -> SparseProfile:
    return kv_view(profile).profile if kind.granularity == "KV head" else profile


def _formats(profile: SparseProfile, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every format: what it is, and why it cannot express this profile, if so."""
    rows = []
    for name, kind in profile_formats().items():
        refused = told = ""
        view = kv_view(profile) if kind.granularity == "KV head" else None
        try:
            format_ = _made(kind, request)
            format_.refuse(_merged(profile, kind))
            told = format_.told(_merged(profile, kind))
        except HeadscopeError as error:
            refused = str(error)
        rows.append(
            {
                "name": name,
                "granularity": kind.granularity,
                "files": list(kind.files),
                "loads": kind.loads,
                "loses": kind.loses,
                "told": told,
                "refused": refused,
                "merged": str(view.cost(request["n"])) if view and view.widened else "",
            }
        )
    return rows


def _exported(
    profile: SparseProfile, request: dict[str, Any]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The files of a format, after they were read back and found to say the same."""
    kind = find(profile_formats(), request["format"], "format of profiles")
    format_, merged = _made(kind, request), _merged(profile, kind)
    with TemporaryDirectory() as folder:
        place = Path(folder, "exported")
        paths = format_.write(merged, place)
        again = format_.read(place, merged)
        layers = merged.model.layers
        if any(again.of_layer(layer) != merged.of_layer(layer) for layer in layers):
            raise HeadscopeError(
                f"{kind.name} does not read back as the profile; report this as a bug."
            )
        contents = [path.read_bytes() for path in paths]
    names = list(kind.files) or [f"{kind.name}.{_ending(contents[0])}"]
    return {"names": names}, [np.frombuffer(content, np.uint8) for content in contents]


def _ending(content: bytes) -> str:
    return "json" if content.lstrip()[:1] in (b"{", b"[") else "safetensors"


if __name__ == "__main__":
    dies_first()
    limit_memory()
    answer(Planner().handle, "There was not enough memory to plan.")
