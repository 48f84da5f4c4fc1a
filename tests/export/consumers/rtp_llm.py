"""RTP-LLM: heads of a rank are gathered by kind, and grouped again over all its KV heads."""

import json


def loaded(path, model, ranks=1):
    told = json.loads(path.read_text())["headwise_config"]
    sink, left = told.get("sink_token_num", 4), told.get("swa_token_num", 8192)
    rows = []
    for layer in model.layers:
        kinds = told.get(str(layer), [1] * model.n_heads)
        check_mapping(kinds, model, ranks)
        # Its own test hides keys with query - key > swa_token_num.
        rows.append([("full",) if kind == 1 else ("streaming", sink, left + 1) for kind in kinds])
    return rows


def check_mapping(kinds, model, ranks):
    """Each kind is one launch, whose heads are dealt evenly to all KV heads of the rank."""
    heads, kv_heads = model.n_heads // ranks, model.n_kv_heads // ranks
    group = heads // kv_heads
    for rank in range(ranks):
        mine = kinds[rank * heads : (rank + 1) * heads]
        for kind in (0, 1):
            gathered = [head for head, other in enumerate(mine) if other == kind]
            if gathered:
                assert len(gathered) % kv_heads == 0
                each = len(gathered) // kv_heads
                for place, head in enumerate(gathered):
                    assert place // each == head // group
