import json


def loaded(path, model):
    told = json.loads(path.read_text())
    group = model.n_heads // model.n_kv_heads
    streaming = ("streaming", told["sink"], told["window"])
    return [
        [
            ("full",) if head // group in told["retrieval_kv_heads"][str(layer)] else streaming
            for head in range(model.n_heads)
        ]
        for layer in model.layers
    ]
