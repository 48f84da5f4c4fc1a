"""Summary figures of released head maps, recomputed beside those that are known of them.

python benchmarks/released.py FOLDER, a folder with head_score/ of nightdessert/Retrieval_Head,
attn_patterns/ of mit-han-lab/duo-attention, minference/configs/ of microsoft/MInference and
examples/ of thu-nics/MoA, or some of them, at any depth. The files are not part of headscope.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from environment import describe

import headscope
from headscope.export.minference import KINDS
from headscope.export.reading import recognised
from headscope.headmap import HeadMap


class Figures(NamedTuple):
    """Numbers of a model: those that have to be the same, and those that are rounded."""

    exact: str
    rounded: str


# What is known: computed before from the same files by another program and noted down rounded.
# Those of retrieval heads reproduce Fig. 3 of their paper; the others are in no paper.
RETRIEVAL = {
    "llama-2-7b-80k": Figures(
        "1024 586 33 16-19 11-15 8-26 6-9 7-12", "70.2 3.2 0.59 .943 .920 .800 .618 .614"
    ),
    "llama-2-13b-64k": Figures(
        "1600 367 33 13-23 9-33 21-5 19-3 6-31", "73.2 2.1 0.38 .905 .871 .650 .626 .596"
    ),
    "Mistral-7B-v0.2-hf": Figures(
        "1024 362 43 18-0 12-7 12-6 18-2 18-3", "65.0 4.2 0.49 .943 .928 .774 .743 .603"
    ),
    "Mixtral-8x7B-v0.1": Figures(
        "1024 390 63 12-7 18-0 18-2 12-6 18-3", "57.6 6.2 0.68 .945 .926 .923 .847 .651"
    ),
    "Yi-6B-200K": Figures(
        "1024 567 53 17-2 14-9 17-6 23-30 14-12", "49.4 5.2 0.68 .778 .760 .756 .695 .659"
    ),
    "Qwen1.5-14B": Figures(
        "1600 390 61 12-2 14-12 23-16 23-18 20-7", "53.4 3.8 0.63 1.003 1.000 .923 .886 .790"
    ),
    "Qwen1.5-14B-Chat": Figures(
        "1600 221 68 14-12 20-7 23-16 12-2 22-6", "71.1 4.3 0.06 .525 .422 .413 .405 .395"
    ),
}
DUO = {
    "Llama-2-7B-32K-Instruct": Figures("32×32", ".419 43.4 26.8 16.0 .000 .237 .941"),
    "Llama-3-8B-Instruct-Gradient-1048k": Figures("32×8", ".769 80.9 7.0 37.9 .717 .961 1.000"),
    "Llama-3-8B-Instruct-Gradient-4194k": Figures("32×8", ".775 81.2 5.9 38.3 .660 .965 1.000"),
    "Meta-Llama-3.1-8B-Instruct": Figures("32×8", ".852 91.4 2.7 30.1 .841 .951 .996"),
    "Mistral-7B-Instruct-v0.2": Figures("32×8", ".923 95.3 2.0 58.2 .961 .996 1.000"),
    "Mistral-7B-Instruct-v0.3": Figures("32×8", ".905 93.8 3.1 54.7 .953 .994 1.000"),
}
MINFERENCE = {
    "Llama_3_8B_Instruct_262k_kv_out_v32_fit_o_best_pattern": Figures(
        "1024 heads: 473 (1000,6096), 278 (30,800), 153 (100,800), 89 (3500,100), 31 (500,700)", ""
    ),
    "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern": Figures(
        "1024 heads: 297 (100,800), 279 (1000,6096), 175", ""
    ),
    "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern_v2": Figures(
        "1024 heads: 1024 (512,2048)", ""
    ),
    "Qwen2.5_72B_Instruct_128k_kv_out_v32_fit_o_best_pattern": Figures(
        "5120 heads: 5073 (1000,6096)", ""
    ),
    "Phi_3_mini_128k_instruct_kv_out_v32_fit_o_best_pattern": Figures("43 stream_llm", ""),
}
MOA = {
    "meta-llama--Llama-3.2-1B-Instruct/moa_alpha_beta": Figures(
        "16×32: 197 (0,0.125), 70 (0,0.875), 54 (-1024,0.875)", "38 49"
    ),
    "lmsys--vicuna-7b-v1.5-16k/moa_alpha_beta": Figures(
        "32×32: 279 (0,0.125), 183 (0,0.625), 171 (0,0.75)", "27 52"
    ),
    "gradientai--Llama-3-8B-Instruct-262k/moa_alpha_beta": Figures("32×32", "39 48"),
}


def retrieval(head_map: HeadMap) -> Figures:
    scores = head_map["retrieval"]
    mean = scores.mean()
    top = head_map.top("retrieval", 5).to_dict("records")
    heads = [f"{row['layer']}-{row['head']}" for row in top]
    counts = (mean.size, len(scores.values), (mean > 0.1).sum())
    shares = numbers(share(mean == 0), share(mean > 0.1), share(mean > 0.5))
    best = numbers(*(row["retrieval"] for row in top))
    return Figures(" ".join(map(str, [*counts, *heads])), f"{shares} {best}")


def duo(head_map: HeadMap) -> Figures:
    gates = head_map["duo_gate"].mean()
    shares = (share(gates > 0.5), share(gates == 0), share(gates >= 0.99))
    found = numbers(gates.mean(), *shares, *np.quantile(gates, [0.25, 0.5, 0.75]))
    return Figures("×".join(map(str, gates.shape)), found)


def minference(head_map: HeadMap) -> Figures:
    sizes = [head_map[f"minference_{name}"].mean().ravel() for name in ("vertical", "slash")]
    counts = Counter(zip(*(each.astype(int).tolist() for each in sizes), strict=True))
    found = [f"{n} ({v},{s})" for (v, s), n in counts.most_common(6)]
    kinds = zip(KINDS, head_map.curves["minference_kind"].sum((0, 1, 2)), strict=True)
    found += [f"{n:.0f} {kind}" for kind, n in kinds if n and kind != "vertical_and_slash"]
    return Figures(f"{sizes[0].size} heads: {', '.join(found)}", "")


def moa(head_map: HeadMap) -> Figures:
    alphas, betas, spans = (head_map[f"moa_{name}"].mean() for name in ("alpha", "beta", "span_8k"))
    counts = Counter(zip(alphas.ravel().tolist(), betas.ravel().tolist(), strict=True))
    found = ", ".join(f"{n} ({a:g},{b:g})" for (a, b), n in counts.most_common(3))
    shape = "×".join(map(str, alphas.shape))
    return Figures(f"{shape}: {found}", numbers(share(spans <= 1024), share(spans >= 5120)))


def share(of: np.ndarray) -> float:
    return 100 * float(of.mean())


def numbers(*values: float) -> str:
    return " ".join(f"{value:.4f}" for value in values)


TABLES: dict[str, tuple[str, Callable[[HeadMap], Figures], dict[str, Figures]]] = {
    "retrieval_head": (
        "heads, samples, heads > 0.1, the top five | % = 0, % > 0.1, % > 0.5, the top five's means",
        retrieval, RETRIEVAL,
    ),
    "duo_attention": ("shape | mean gate, % > 0.5, % = 0, % >= 0.99, quartiles", duo, DUO),
    "minference": ("heads of which (vertical, slash)", minference, MINFERENCE),
    "moa": ("heads of which (alpha, beta) | % of spans at 8k <= 1024, >= 5120", moa, MOA),
}  # fmt: skip


def agree(found: Figures, noted: Figures) -> bool:
    """What is exact has to be in what was found; the rest has to be within its rounding."""
    pairs = list(zip(found.rounded.split(), noted.rounded.split(), strict=bool(noted.rounded)))
    places = [len(number.partition(".")[2]) for _, number in pairs]
    near = all(
        abs(float(one) - float(other)) <= 0.5 * 10.0**-digits + 5e-5  # found has four places
        for (one, other), digits in zip(pairs, places, strict=True)
    )
    return near and noted.exact in found.exact


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else Path()
    if len(sys.argv) != 2 or not folder.is_dir():
        sys.exit("Name the folder of the released files: python benchmarks/released.py FOLDER")
    describe()
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".tsv"))
    head_maps = [headscope.read_heads(path) for path in paths if recognised(path)]
    verdicts = Counter()
    for format, (heading, figures, noted) in TABLES.items():
        print(f"{format}: {heading}")
        for head_map in head_maps:
            source, model = head_map.info.source, head_map.info.model
            if source is None or source.format != format:
                continue
            name = model.name if model.name in noted else model.spec
            found, known = figures(head_map), noted.get(name)
            verdict = "nothing" if known is None else "same" if agree(found, known) else "differs"
            verdicts[verdict] += 1
            digest = next(iter(source.files.values()))
            print(f"  {name} (SHA-256 {digest[:12]})\n    here   {' | '.join(filter(None, found))}")
            if known is not None:
                print(f"    noted  {' | '.join(filter(None, known))}: {verdict}")
        print(flush=True)
    print(
        f"{verdicts['same']} of {verdicts['same'] + verdicts['differs']} models give what is noted "
        f"(of {verdicts['nothing']} files nothing is)."
    )


if __name__ == "__main__":
    main()
