from definitions import Case
from definitions.marked import MARKED

PARAMETERS = {"prompts": MARKED}
SENTENCES = [range(1, 4), range(4, 19), range(19, 26), range(26, 31)]
NEEDLE = 1


def define(case: Case) -> dict[str, list[float]]:
    hits, shares = [], []
    for p in case.pattern.tolist():
        context = sum(p[37][j] for tokens in SENTENCES for j in tokens)
        features = [
            sum(p[37][j] / context if context > 0 else 0.0 for j in tokens) / len(tokens)
            for tokens in SENTENCES
        ]
        others = [x for i, x in enumerate(features) if i != NEEDLE]
        hits.append(float(features[NEEDLE] > max(others)))
        shares.append(features[NEEDLE] / sum(features) if sum(features) > 0 else 0.0)
    return {"sentence": hits, "sentence_share": shares}
