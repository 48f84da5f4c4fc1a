"""MInference: what its kernels get for a head, at a length where nothing is cut to the text."""

import json

LENGTH = 4096  # of full heads in the files that are looked at


def loaded(path, model):
    told = json.loads(path.read_text())
    return [[said(*layer[str(head)]) for head in range(model.n_heads)] for layer in told]


def said(kind, first, second, _):
    if kind == "stream_llm":
        return ("streaming", first, second)
    assert kind == "vertical_and_slash"
    columns, diagonals = min(LENGTH, max(first, 30)), min(LENGTH, max(second, 50))
    return ("full",) if columns == diagonals == LENGTH else ("lines", columns, diagonals)
