"""One recipe for each intervention, on any model: what the table of costs measures."""

from collections.abc import Callable
from typing import Any, Literal

from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions import (
    ACT,
    Ablate,
    AddSink,
    AttentionBuckets,
    AttentionKnockout,
    AttentionSorting,
    AttnRank,
    CalibratedRanking,
    ContextSteering,
    DuoAttention,
    InstaBoost,
    LmInfinite,
    Pasta,
    Patch,
    RazorAttention,
    RemoveSink,
    ScaleSink,
    SirLLM,
    SnapKV,
    Spotlight,
    StreamingLLM,
    TaskKV,
)
from headscope.interventions.base import Intervention
from headscope.interventions.patch import Outputs
from headscope.interventions.slot_profile import SlotProfile
from headscope.model import HeadModel
from headscope.prompts.documents import Documents
from headscope.prompts.needle import Needle

Wants = Literal["needle", "documents"]


def some(model: HeadModel) -> list[Head]:
    """Every fifth head."""
    return model.heads[::5]


def half(model: HeadModel) -> list[Head]:
    """Every other KV head."""
    every = [(layer, kv) for layer in model.layers for kv in range(model.n_kv_heads)]
    return every[::2]


def outputs(model: HeadModel) -> Outputs:
    prompt = Needle(samples=1, lengths=(1000,)).prompt(0, model.tokenizer)
    return Outputs.of(model, prompt.token_ids)


def profile(model: HeadModel) -> SlotProfile:
    family = Documents(samples=10, documents=10, document_tokens=92)
    return SlotProfile.measure(model, family.prompts(model.tokenizer)[:2])


RECIPES: dict[str, tuple[Callable[[HeadModel], Any], Wants]] = {
    "ablate": (lambda m: Ablate(some(m)), "needle"),
    "act": (lambda m: ACT(), "needle"),
    "add_sink": (lambda m: AddSink(), "needle"),
    "attention_buckets": (lambda m: AttentionBuckets(), "needle"),
    "attention_knockout": (lambda m: AttentionKnockout("needle"), "needle"),
    "attention_sorting": (lambda m: AttentionSorting(), "documents"),
    "attn_rank": (lambda m: AttnRank(profile=profile(m)), "documents"),
    "calibrated_ranking": (lambda m: CalibratedRanking(), "documents"),
    "context_steering": (lambda m: ContextSteering(), "needle"),
    "duo_attention": (lambda m: DuoAttention(half(m)), "needle"),
    "insta_boost": (lambda m: InstaBoost("question"), "needle"),
    "lm_infinite": (lambda m: LmInfinite(window=256), "needle"),
    "pasta": (lambda m: Pasta("needle"), "needle"),
    "patch": (lambda m: Patch(some(m), outputs(m)), "needle"),
    "razor_attention": (lambda m: RazorAttention(some(m), recent=100), "needle"),
    "remove_sink": (lambda m: RemoveSink(), "needle"),
    "scale_sink": (lambda m: ScaleSink(0.5), "needle"),
    "sir_llm": (lambda m: SirLLM(), "needle"),
    "snap_kv": (lambda m: SnapKV(capacity=256), "needle"),
    "spotlight": (lambda m: Spotlight("needle"), "needle"),
    "streaming_llm": (lambda m: StreamingLLM(), "needle"),
    "task_kv": (lambda m: TaskKV(), "needle"),
}


def recipe(name: str, model: HeadModel) -> tuple[Intervention, Wants]:
    """A recipe that acts on most heads, and the prompt that it is for.

    Raises:
        HeadscopeError: nobody has written one.
    """
    if name not in RECIPES:
        raise HeadscopeError(f"{name} has no recipe in {__file__}; add one.")
    make, wants = RECIPES[name]
    return make(model), wants
