from definitions import Case
from definitions.locos import before_norm


def define(case: Case) -> dict[str, list[float]]:
    a, W_O = case.attention, case.model.weights(case.attention.layer).W_O.double()
    found = []
    for head in range(len(case.pattern)):
        shares = []
        for token in set(case.tokens):
            j = case.tokens.index(token)
            logits = before_norm(case.model, a.v[0, head // a.group, j].double() @ W_O[head])
            raised = (logits - logits.mean()).clamp(min=0).tolist()
            total = sum(raised[x] for x in set(case.tokens))
            shares.append(raised[token] / total if total else 0.0)
        found.append(2 * sum(shares) / len(shares) - 1)
    return {"copying": found}
