"""The three backends on the built-in model: same scores, same ablated logits, same tokens."""

import numpy as np
import torch
from environment import describe

import headscope
from headscope.interventions.ablate import Ablate

HEADS = ("L18H6", "L17H4", "L6H0", "L3H2", "L29H8")


def main() -> None:
    describe()
    torch.set_grad_enabled(False)
    scores, logits, tokens = {}, {}, {}
    for backend in ("hf", "nnsight", "lens"):
        model = headscope.load("smollm2", backend=backend)
        scores[backend] = headscope.scan(model, "all", samples=4)
        ids = model.tokens("The quick brown fox jumps over the lazy dog. The quick brown fox")
        with Ablate(HEADS)(model):
            logits[backend] = model(ids)
            tokens[backend] = model.generate(ids, max_new_tokens=16)
    print(f"{'largest difference from hf':34}{'nnsight':>12}{'lens':>12}")
    for name, score in scores["hf"].scores.items():
        others = [scores[b][name].values for b in ("nnsight", "lens")]
        assert all((np.isnan(score.values) == np.isnan(other)).all() for other in others), name
        cells = [np.nanmax(np.abs(score.values - other)) for other in others]
        print(f"{name:34}" + "".join(f"{cell:12.2e}" for cell in cells))
    cells = [float((logits["hf"] - logits[b]).abs().max()) for b in ("nnsight", "lens")]
    print(f"{'logits after zeroing five heads':34}" + "".join(f"{cell:12.2e}" for cell in cells))
    same = [torch.equal(tokens["hf"], tokens[b]) for b in ("nnsight", "lens")]
    print(f"{'16 generated tokens equal':34}" + "".join(f"{cell!s:>12}" for cell in same))


if __name__ == "__main__":
    main()
