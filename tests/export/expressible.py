"""Profiles that each format can express, and what is said of them."""

from hypothesis import strategies as st

from headscope.catalog import patterns, profile_formats, selectors
from headscope.export.profiles.base import ProfileFormat
from headscope.patterns import Full, Radial, Streaming, Strided
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.sparsity import SparseProfile
from headscope.sparsity.profile import ProfiledModel

KINDS, _ = profile_formats(), (patterns(), selectors())  # imported before hypothesis looks on
LENGTH = 4096  # of full heads in templates
TOKENS = st.integers(0, 10**6)
WINDOWS = st.integers(1, 10**6)


def a_model(layers: int = 2, kv_heads: int = 2, group: int = 3) -> ProfiledModel:
    return ProfiledModel(
        name="made-up",
        layers=tuple(range(layers)),
        n_heads=kv_heads * group,
        n_kv_heads=kv_heads,
        d_head=8,
    )


MODELS = st.builds(a_model, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def lines(least: int) -> st.SearchStrategy[Rule]:
    return st.builds(VerticalSlash, st.integers(least, LENGTH - 1), st.integers(100, 10**6))


RULES: dict[str, st.SearchStrategy[Rule]] = {
    "minference": st.just(Full()) | st.builds(Streaming, TOKENS, WINDOWS) | lines(30),
    "qwen_1m": st.just(Full()) | lines(31),
    "moa": st.just(Full())
    | st.builds(Streaming, st.just(64), WINDOWS)
    | st.builds(
        Streaming, st.just(64), st.integers(-(10**5), 10**5), st.floats(0.001, 0.99)
    ),
    "headscope": st.just(Full()) | st.builds(Streaming, TOKENS, WINDOWS) | lines(30)
    | st.builds(Radial, TOKENS, st.integers(1, 64)),
}  # fmt: skip
SMALL = (
    st.just(Full())
    | st.builds(Streaming, st.integers(0, 9), st.integers(1, 9))
    | st.builds(Streaming, st.integers(0, 9), st.integers(-3, 9), st.floats(0.1, 0.9))
    | st.builds(Strided, st.integers(0, 3), st.integers(1, 9), st.integers(1, 9))
)


def expressed(data: st.DataObject, name: str) -> tuple[ProfileFormat, SparseProfile]:
    """A format with its parameters, and a profile that it can express."""
    format_, model, rows = data.draw(_parts(name))
    return format_, SparseProfile.of(model, rows)


@st.composite
def _parts(draw: st.DrawFn, name: str) -> tuple[ProfileFormat, ProfiledModel, list[list[Rule]]]:
    model, kind = draw(MODELS), KINDS[name]
    shape = range(len(model.layers)), range(model.n_heads), range(model.n_kv_heads)
    if name in ("flex_attention", "flashinfer"):
        length = draw(st.integers(2, 33))
        format_ = kind(length=length, block=draw(st.integers(1, length)))
        if name == "flex_attention":
            rows = [[draw(SMALL) for _ in shape[1]] for _ in shape[0]]
        else:
            rows = [[r for _ in shape[2] for r in [draw(SMALL)] * model.group] for _ in shape[0]]
    elif name in RULES:
        format_ = kind(length=LENGTH) if name in ("minference", "qwen_1m") else kind()
        rows = [[draw(RULES[name]) for _ in shape[1]] for _ in shape[0]]
    else:
        format_ = kind()
        rule = draw(st.builds(Streaming, st.integers(1, 10**6), WINDOWS))
        pair, rows = (Full(), rule), []
        for _ in shape[0]:
            if name == "rtp_llm":
                full = draw(st.integers(0, model.group))
                orders = [
                    draw(st.permutations([0] * full + [1] * (model.group - full))) for _ in shape[2]
                ]
            else:
                orders = [[draw(st.integers(0, 1))] * model.group for _ in shape[2]]
            rows.append([pair[one] for order in orders for one in order])
    return format_, model, rows


def said(rule: Rule) -> tuple[object, ...]:
    """A rule in the words of the consumers."""
    if isinstance(rule, Full):
        return ("full",)
    if isinstance(rule, Streaming):
        return ("streaming", rule.sink, rule.window, *([rule.growth] if rule.growth else []))
    assert isinstance(rule, VerticalSlash)
    return ("lines", rule.vertical, rule.slash)


def rows_of(profile: SparseProfile) -> list[list[Rule]]:
    return [list(profile.of_layer(layer)) for layer in profile.model.layers]
