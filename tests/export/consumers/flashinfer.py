"""FlashInfer: a row block's keys put one behind the other, causal from their end."""

import torch

from headscope.export.profiles.flashinfer import plan_arguments


def loaded(path, model):
    rows = []
    for layer in model.layers:
        told = plan_arguments(path, layer, model.n_kv_heads)
        group = told["num_qo_heads"] // told["num_kv_heads"]
        heads = [seen(told, kv) for kv in range(told["num_kv_heads"])]
        rows.append([mask for mask in heads for _ in range(group)])
    return rows


def seen(told, kv):
    chosen, rows, columns = (
        told[name][kv] for name in ("block_mask_map", "block_row_sz", "block_col_sz")
    )
    mask = torch.zeros(int(rows.sum()), int(columns.sum()), dtype=torch.bool)
    starts = columns.cumsum(0) - columns
    first = 0
    for row, size in enumerate(rows.tolist()):
        keys = [
            key
            for column in chosen[row].nonzero().flatten().tolist()
            for key in range(starts[column], starts[column] + columns[column])
        ]
        for query in range(size):
            visible = len(keys) - size + query + 1 if told["causal"] else len(keys)
            mask[first + query, keys[:visible]] = True
        first += size
    return mask
