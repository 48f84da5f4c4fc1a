"""One recipe for each intervention, on any model: what the table of costs measures."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions import (
    ACT,
    ITI,
    Ablate,
    AddSink,
    AttentionBuckets,
    AttentionKnockout,
    AttentionSorting,
    AttnRank,
    CalibratedAttention,
    CalibratedRanking,
    ContextSteering,
    Dagcd,
    DuoAttention,
    FocusDirections,
    InfiniteRetrieval,
    InstaBoost,
    InstructionAnchors,
    LmInfinite,
    LycheeDecode,
    ParallelContext,
    Pasta,
    Patch,
    PauseTokens,
    RazorAttention,
    RecycledAttention,
    RemoveSink,
    RescaleConcept,
    ScaleHeads,
    ScaleSink,
    Sentinel,
    SirLLM,
    SnapKV,
    Spotlight,
    StreamingLLM,
    TaskKV,
    TidalDecode,
    TokenSelect,
)
from headscope.interventions.base import Intervention
from headscope.interventions.concept import Concept
from headscope.interventions.directions import DirectionFacts, Directions
from headscope.interventions.output_directions import OutputDirections, OutputFacts
from headscope.interventions.patch import Outputs
from headscope.interventions.sentinel_classifier import SentinelClassifier
from headscope.interventions.slot_profile import SlotProfile
from headscope.interventions.trained import facts_of
from headscope.interventions.utilization_detector import UtilizationDetector
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
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


def directions(model: HeadModel) -> Directions:
    """Those of 20 heads, of no use: their values do not change their cost."""
    heads = tuple(model.heads[5::13][:20])
    q = torch.randn(len(heads), model.d_head, generator=torch.Generator().manual_seed(0))
    facts = DirectionFacts(
        **facts_of(model),
        heads=heads,
        span="gold",
        prompts=1,
        epochs=1,
        lr=0.001,
        before=0,
        after=0,
    )
    return Directions(q, facts)


def output_directions(model: HeadModel) -> OutputDirections:
    heads = tuple(model.heads[5::13][:12])
    theta = torch.randn(len(heads), model.d_head, generator=torch.Generator().manual_seed(0))
    facts = OutputFacts(
        **facts_of(model), heads=heads, accuracy=(0.5,) * len(heads), prompts=(10, 10)
    )
    return OutputDirections(theta / theta.norm(dim=1, keepdim=True), torch.ones(len(heads)), facts)


def short(model: HeadModel, count: int) -> list[Prompt]:
    return Needle(samples=count, lengths=(200,)).prompts(model.tokenizer)


RECIPES: dict[str, tuple[Callable[[HeadModel], Any], Wants]] = {
    "ablate": (lambda m: Ablate(some(m)), "needle"),
    "act": (lambda m: ACT(), "needle"),
    "add_sink": (lambda m: AddSink(), "needle"),
    "attention_buckets": (lambda m: AttentionBuckets(), "needle"),
    "attention_knockout": (lambda m: AttentionKnockout("needle"), "needle"),
    "attention_sorting": (lambda m: AttentionSorting(), "documents"),
    "attn_rank": (lambda m: AttnRank(profile=profile(m)), "documents"),
    "calibrated_ranking": (lambda m: CalibratedRanking(), "documents"),
    "calibrated_attention": (lambda m: CalibratedAttention(), "documents"),
    "context_steering": (lambda m: ContextSteering(), "needle"),
    "dagcd": (
        lambda m: Dagcd(UtilizationDetector.train(m, short(m, 6), "user"), "user"),
        "needle",
    ),
    "duo_attention": (lambda m: DuoAttention(half(m)), "needle"),
    "focus_directions": (lambda m: FocusDirections(directions(m)), "needle"),
    "infinite_retrieval": (lambda m: InfiniteRetrieval(chunk=256), "needle"),
    "insta_boost": (lambda m: InstaBoost("question"), "needle"),
    "instruction_anchors": (
        lambda m: InstructionAnchors("question", "needle", heads=some(m)),
        "needle",
    ),
    "iti": (lambda m: ITI(output_directions(m)), "needle"),
    "lm_infinite": (lambda m: LmInfinite(window=256), "needle"),
    "lychee_decode": (lambda m: LycheeDecode(k=64, heads=some(m)), "needle"),
    "parallel_context": (lambda m: ParallelContext(), "documents"),
    "pasta": (lambda m: Pasta("needle"), "needle"),
    "patch": (lambda m: Patch(some(m), outputs(m)), "needle"),
    "pause_tokens": (lambda m: PauseTokens(10), "needle"),
    "razor_attention": (lambda m: RazorAttention(some(m), recent=100), "needle"),
    "recycled_attention": (lambda m: RecycledAttention(k=64), "needle"),
    "remove_sink": (lambda m: RemoveSink(), "needle"),
    "rescale_concept": (
        lambda m: RescaleConcept(some(m), Concept.of(m, ["red", "blue"])),
        "needle",
    ),
    "scale_heads": (lambda m: ScaleHeads(some(m), 0.5), "needle"),
    "scale_sink": (lambda m: ScaleSink(0.5), "needle"),
    "sentinel": (
        lambda m: Sentinel(classifier=SentinelClassifier.train(m, short(m, 6)), budget=0.25),
        "needle",
    ),
    "sir_llm": (lambda m: SirLLM(), "needle"),
    "snap_kv": (lambda m: SnapKV(capacity=256), "needle"),
    "spotlight": (lambda m: Spotlight("needle"), "needle"),
    "streaming_llm": (lambda m: StreamingLLM(), "needle"),
    "task_kv": (lambda m: TaskKV(), "needle"),
    "tidal_decode": (lambda m: TidalDecode(k=64), "needle"),
    "token_select": (lambda m: TokenSelect(k=64, sink=4, recent=64), "needle"),
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
