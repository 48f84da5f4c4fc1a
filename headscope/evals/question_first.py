from dataclasses import dataclass, field

from headscope.evals.context_order import ContextOrder, Order


@dataclass(frozen=True)
class QuestionFirst(ContextOrder):
    """The questions of `context_order` with question and options before the context (QOC).

    What a model loses here against `context_order` is the cost of the order alone.

    Source: as `context_order`.
    """

    order: Order = field(default="QOC", kw_only=True)
