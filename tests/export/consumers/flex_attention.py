"""FlexAttention: listed blocks, of which some are asked pair by pair."""

import torch

from headscope.export.profiles.flex_attention import block_mask


def loaded(path, model):
    return [list(tokens(block_mask(path, layer))) for layer in model.layers]


def tokens(mask):
    """[head, query, key]: what a kernel would compute."""
    queries, keys = mask.seq_lengths
    size, _ = mask.BLOCK_SIZE
    heads, rows = mask.kv_num_blocks.shape[1:]
    seen = torch.zeros(heads, queries, keys, dtype=torch.bool)
    for head in range(heads):
        for row in range(rows):
            first, last = row * size, min(row * size + size, queries)
            for kind, whole in (("", False), ("full_", True)):
                count = getattr(mask, f"{kind}kv_num_blocks")[0, head, row]
                for column in getattr(mask, f"{kind}kv_indices")[0, head, row, :count].tolist():
                    start, stop = column * size, min(column * size + size, keys)
                    query = torch.arange(first, last)[:, None]
                    key = torch.arange(start, stop)[None]
                    asked = torch.ones(last - first, stop - start, dtype=torch.bool)
                    if not whole:
                        asked = mask.mask_mod(torch.tensor(0), torch.tensor(head), query, key)
                    assert not seen[head, first:last, start:stop].any()  # listed twice
                    seen[head, first:last, start:stop] = asked
    return seen
