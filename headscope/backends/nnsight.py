"""nnsight: the registered attention function fires inside its traces."""

from typing import Any

from nnsight import TransformersModel
from torch import Tensor

from headscope.backends.hf import HFBackend


class NNsightBackend(HFBackend):
    """An nnsight model; every pass is a trace, so that its own edits stay in force."""

    name = "nnsight"

    def __init__(self, traced: TransformersModel) -> None:
        self.traced = traced
        super().__init__(traced._module)

    def native(self, inputs: dict[str, Any]) -> Tensor:
        tokens = inputs["input_ids"]
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        # What the model's own `output` holds has not been through the hooks of the model yet.
        with self.traced.trace(tokens, **rest) as tracer:
            result = tracer.result.save()
        return result.logits

    def forward(self, inputs: dict[str, Any]) -> Tensor:
        with self.attached():
            return self.native(inputs)

    def generate(self, inputs: dict[str, Any]) -> Tensor:
        tokens = inputs["input_ids"]
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        with self.attached(), self.traced.generate(tokens, **rest) as tracer:
            sequences = tracer.result.save()
        return sequences  # noqa: RET504 (bound when the trace closes)

    def _again(self, *call: Any) -> Tensor:
        # The trace would take this pass for the one that it waits for, so it is not shown to it.
        running = self.traced.interleaver
        before, running.interleaving = running.interleaving, False
        try:
            return super()._again(*call)
        finally:
            running.interleaving = before
