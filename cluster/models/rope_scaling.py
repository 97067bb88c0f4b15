"""How a model's rotary embedding is stretched beyond its first training, as `config.json` says it:
`rope_parameters` since transformers 5, `rope_scaling` before.

| rope_type | here | served up to |
| --- | --- | --- |
| default | None | max_position_embeddings |
| linear | LinearRope | max_position_embeddings |
| dynamic | None: it is the plain embedding up to there | max_position_embeddings |
| yarn | YarnRope | factor * original_max_position_embeddings, if that is more |
| llama3 | Llama3Rope | max_position_embeddings |
| longrope with one list of factors for all lengths | DividedRope | max_position_embeddings |

Dynamic scaling, and longrope with two lists, turn a position by an angle that depends on how long
the context has become: keys in a cache would have to be turned again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cluster.models.fields import LARGEST, Fields, invalid, unsupported


@dataclass(frozen=True, slots=True)
class LinearRope:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Long wavelengths stretched by `factor`, short ones kept, a ramp between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, slots=True)
class YarnRope:
    """As Llama 3's, with the ramp over indices of elements (YaRN, arXiv 2309.00071, section 3.2).

    Pairs that turn more than `beta_fast` times in the original context are kept, those that turn
    less than `beta_slow` times are stretched; `truncate` widens the ramp to whole indices.
    Cosines and sines are multiplied by `attention_factor`.
    """

    factor: float
    original_max_position: int
    attention_factor: float
    beta_fast: float
    beta_slow: float
    truncate: bool


@dataclass(frozen=True, slots=True)
class DividedRope:
    """Frequency i divided by `divisors[i]`, of which there are head_dim / 2. Cosines and sines are
    multiplied by `attention_factor`."""

    divisors: tuple[float, ...]
    attention_factor: float


RopeScaling = LinearRope | Llama3Rope | YarnRope | DividedRope | None


@dataclass(frozen=True, slots=True)
class Rope:
    """`theta` is the base of the wavelengths, `max_position` how many tokens the embedding is for,
    `limit_reason` why there are no more of them where the model's author meant more."""

    theta: float
    scaling: RopeScaling
    max_position: int
    limit_reason: str = ""


# What each type may say beside its name and rope_theta. "finetuned" changes no number.
_KEYS = {
    "default": frozenset[str](),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset(
        {
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        }
    ),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "mscale",
            "mscale_all_dim",
            "beta_fast",
            "beta_slow",
            "truncate",
            "finetuned",
        }
    ),
    "longrope": frozenset(
        {
            "factor",
            "short_factor",
            "long_factor",
            "original_max_position_embeddings",
            "attention_factor",
        }
    ),
}
_EVERY_TYPE = frozenset({"type", "rope_type", "rope_theta", "partial_rotary_factor"})


def read_rope(config: Fields, head_dim: int) -> Rope:
    """From the whole `config.json`.

    Raises Unsupported for a type or a key that is not computed here, InvalidArgument for a missing
    or senseless number.
    """
    rope = config.part("rope_parameters") or config.part("rope_scaling") or Fields({})
    kind = _kind(rope)
    for fields in (config, rope):
        fields.require("partial_rotary_factor", 1.0)
    max_position = config.count("max_position_embeddings")
    theta = rope.positive("rope_theta", config.positive("rope_theta", 10000.0))
    match kind:
        case "linear":
            return Rope(theta, LinearRope(rope.positive("factor")), max_position)
        case "dynamic":
            return Rope(theta, None, max_position, "beyond, its dynamic rotary scaling would begin")
        case "llama3":
            return Rope(theta, _llama3(rope, config), max_position)
        case "yarn":
            yarn = _yarn(rope, config, theta)
            reach = yarn.factor * yarn.original_max_position
            if reach > LARGEST:
                raise invalid("factor", yarn.factor, f"a context of at most {LARGEST} tokens")
            return Rope(theta, yarn, max(max_position, math.floor(reach)))
        case "longrope":
            return Rope(theta, _divided(rope, config, head_dim), max_position)
        case _:
            return Rope(theta, None, max_position)


def _kind(rope: Fields) -> str:
    kind = rope.raw.get("rope_type", rope.raw.get("type", "default"))
    if not isinstance(kind, str) or kind not in _KEYS:
        raise unsupported("rope_type", kind, f"rope_type is {', '.join(_KEYS)}")
    for key in rope.raw.keys() - _KEYS[kind] - _EVERY_TYPE:
        if rope.has(key):
            raise unsupported(
                key, rope.raw[key], f"a rotary embedding of type {kind} without {key}"
            )
    return kind


def _llama3(rope: Fields, config: Fields) -> Llama3Rope:
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if high <= low:
        raise invalid("high_freq_factor", high, "high_freq_factor is above low_freq_factor")
    return Llama3Rope(
        factor=rope.positive("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position=_original(rope, config),
    )


def _yarn(rope: Fields, config: Fields, theta: float) -> YarnRope:
    if theta <= 1:
        raise invalid("rope_theta", theta, "rope_theta is above 1")
    factor = rope.positive("factor")
    return YarnRope(
        factor=factor,
        original_max_position=_original(rope, config),
        attention_factor=rope.positive("attention_factor", _yarn_attention(rope, factor)),
        beta_fast=rope.positive("beta_fast", 32.0),
        beta_slow=rope.positive("beta_slow", 1.0),
        truncate=rope.flag("truncate", True),
    )


def _yarn_attention(rope: Fields, factor: float) -> float:
    """Equation 22 of the paper, or the quotient of two of them that DeepSeek made of it."""

    def of(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    # Zero and absent are the same here, as they are in transformers.
    above, below = rope.raw.get("mscale"), rope.raw.get("mscale_all_dim")
    if above and below:
        return of(rope.positive("mscale")) / of(rope.positive("mscale_all_dim"))
    return of(1.0)


def _divided(rope: Fields, config: Fields, head_dim: int) -> DividedRope:
    divisors = rope.positives("long_factor", head_dim // 2)
    if rope.positives("short_factor", head_dim // 2) != divisors:
        raise unsupported(
            "rope_type", "longrope", "longrope whose short_factor and long_factor are the same list"
        )
    return DividedRope(divisors, rope.positive("attention_factor", _long_attention(rope, config)))


def _long_attention(rope: Fields, config: Fields) -> float:
    """sqrt(1 + ln(factor) / ln(original length)) (LongRoPE, arXiv 2402.13753, section 4)."""
    original = _original(rope, config)
    factor = rope.positive("factor", config.count("max_position_embeddings") / original)
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 < original else 1.0


def _original(rope: Fields, config: Fields) -> int:
    """Tokens of the first training. What stands outside the rotary part goes before, and all of the
    context is what remains when nobody says."""
    name = "original_max_position_embeddings"
    if config.has(name):
        return config.count(name)
    return rope.count(name, config.count("max_position_embeddings"))
