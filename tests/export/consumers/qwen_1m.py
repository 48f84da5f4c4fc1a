"""SGLang 0.5.10.post1 on Qwen2.5-1M: templates of one kind, 30 columns taken as 130."""

import json

LENGTH = 4096


def loaded(path, model):
    told = json.loads(path.read_text())
    rows = []
    for layer in range(len(model.layers)):
        heads = {int(head): template for head, template in told[layer].items()}
        rows.append([said(*heads[head]) for head in range(model.n_heads)])
    return rows


def said(kind, columns, diagonals, _):
    assert kind == "vertical_and_slash"
    if columns == 30:
        columns += 100
    columns, diagonals = min(columns, LENGTH), min(diagonals, LENGTH)
    return ("full",) if columns == diagonals == LENGTH else ("lines", columns, diagonals)
