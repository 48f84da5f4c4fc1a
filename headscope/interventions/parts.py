"""What methods share whose parameters say which rows they act on."""

from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.checks import check_choice
from headscope.run import Part


class _InPart:
    """A method with a field `part`: the rows that it acts on, as in `Ablate`."""

    part: Part
    causal: bool

    def _check_part(self) -> None:
        check_choice(self, "part", Part)

    @property
    def reads_prompt_alike(self) -> bool:
        return self.causal and self.part in ("answer", "decode")

    def _rows(self, attention: Attention) -> Bool[Tensor, "batch query"]:
        """The rows of one layer that it acts on."""
        if self.part == "all":
            return attention.query_positions >= 0
        assert attention.run is not None
        return attention.run.rows_in(self.part, attention.query_positions)
