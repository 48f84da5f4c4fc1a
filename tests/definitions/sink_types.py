from definitions import Case

KINDS = {"special": {"w1", "w2", "<turn>"}, "newline": {"\n", "?\n"}, "punctuation": {".", "、"}}


def define(case: Case) -> dict[str, list[float]]:
    n = len(case.tokens)
    words = [case.model.tokenizer.decode([token]) for token in case.tokens]
    seen = case.attention.visible().expand(1, len(case.pattern), n, n)[0].tolist()
    scores: dict[str, list[float]] = {"sink_types": []}
    for p, sees in zip(case.pattern.tolist(), seen, strict=True):
        excess = 0.0
        for i in range(n):
            visible = [j for j in range(n) if sees[i][j]]
            delimiters = [j for j in visible if j > 0 and words[j] in set().union(*KINDS.values())]
            excess += sum(p[i][j] for j in delimiters) - len(delimiters) / len(visible)
        scores["sink_types"].append(excess / n)
        for kind, these in KINDS.items():
            keys = [j for j in range(1, n) if words[j] in these]
            mass = sum(p[i][j] for i in range(n) for j in keys) / n
            scores.setdefault(f"sink_{kind}", []).append(mass)
    return scores
