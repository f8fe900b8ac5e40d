"""From hidden states to what losses read: pooling over each packed text, then a head.

Legend: R rows, T tokens, P scored texts in a row, D width, C classes, A attributes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmjax.errors import UserError
from rmjax.models.transformer import Transformer

POOLINGS = ("mean", "first", "last")


def pool(
    hidden: Float[Array, "R T D"],
    positions: Int[Array, "R T"],
    segments: Int[Array, "R T"],
    score_at: Int[Array, "R P"],
    branches: Int[Array, "R T"] | None = None,
    *,
    pooling: str,
) -> Float[Array, "R P D"]:
    """One vector per text: the mean over its tokens, its first token or its last.

    score_at: index of each text's last token, known from lengths; slots without a text point at 0.
    branches: of `positions.Places`: a shared prompt's tokens are each completion's own.
    Raises: ValueError on another pooling, or "first" with branches, which have their first token elsewhere.
    """
    take = lambda x, at: jnp.take_along_axis(x, at, axis=1)
    if pooling == "last":
        return take(hidden, score_at[..., None])
    if pooling == "first":
        if branches is not None:
            raise ValueError("pooling 'first' cannot be had where prompts are shared")
        return take(hidden, (score_at - take(positions, score_at))[..., None])
    if pooling != "mean":
        raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
    own = segments[:, :, None] == take(segments, score_at)[:, None, :]
    own &= segments[:, :, None] > 0
    if branches is not None:
        branch = branches[:, :, None]
        own &= (branch == 0) | (branch == take(branches, score_at)[:, None, :])
    own = own.astype(hidden.dtype)
    total = jnp.einsum("rtp,rtd->rpd", own, hidden, precision="highest")
    return total / jnp.maximum(jnp.sum(own, axis=1), 1.0)[..., None]


class Linear(nn.Module):
    """The head's projection, in float32: weights of deviation 1/sqrt(D + 1), bias 0 (Stiennon et al. 2020)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> Float[Array, "R P F"]:
        """[R, P, D] -> [R, P, features]."""
        width = x.shape[-1]
        kernel = self.param(
            "kernel", nn.initializers.normal((width + 1) ** -0.5), (width, self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return jnp.einsum("rpd,df->rpf", x, kernel, precision="highest") + bias[None, None]


def hidden_layer(x: Float[Array, "R P D"], wanted: bool) -> Float[Array, "R P D"]:
    """tanh of a projection of x in the caller's scope, if wanted: what BERT's and RoBERTa's classifiers begin with."""
    return jnp.tanh(Linear(x.shape[-1], name="dense")(x)) if wanted else x


class Scalar(nn.Module):
    """A score; with ties, also the Rao-Kupper tie width before its softplus."""

    ties: bool = False
    hidden: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> dict[str, Array]:
        """{"score" [R, P]} and perhaps {"tie_width" []}."""
        x = hidden_layer(x, self.hidden)
        outputs = {"score": Linear(1, name="score")(x)[..., 0]}
        if self.ties:
            outputs["tie_width"] = self.param("tie_width", nn.initializers.zeros, ())
        return outputs


class Classes(nn.Module):
    """A distribution over the ratings `values`; the score is its mean."""

    values: tuple[float, ...]
    hidden: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> dict[str, Array]:
        """{"logits" [R, P, C], "score" [R, P]}."""
        x = hidden_layer(x, self.hidden)
        logits = Linear(len(self.values), name="logits")(x)
        score = jnp.sum(jax.nn.softmax(logits) * jnp.array(self.values)[None, None], axis=-1)
        return {"logits": logits, "score": score}


class Ordinal(nn.Module):
    """A score and the increasing thresholds between C ordered classes (McCullagh 1980)."""

    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> dict[str, Array]:
        """{"score" [R, P], "thresholds" [C - 1]}."""
        gaps = self.param("gaps", nn.initializers.zeros, (self.classes - 1,))
        steps = jnp.concatenate([gaps[:1], jax.nn.softplus(gaps[1:])])
        start = -0.5 * jnp.log(2.0) * (self.classes - 2)  # centers the thresholds at initialization
        return {
            "score": Linear(1, name="score")(x)[..., 0],
            "thresholds": start + jnp.cumsum(steps),
        }


class Gaussian(nn.Module):
    """A mean (the score) and a log-variance."""

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> dict[str, Array]:
        """{"score" [R, P], "log_variance" [R, P]}."""
        both = Linear(2, name="score")(x)
        return {"score": both[..., 0], "log_variance": both[..., 1]}


class Attributes(nn.Module):
    """A score for each named attribute; the score is their weighted sum."""

    weights: tuple[tuple[str, float], ...]  # of each attribute in the score, by name

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> dict[str, Array]:
        """{"attribute_scores" [R, P, A], "score" [R, P]}."""
        scores = Linear(len(self.weights), name="attributes")(x)
        weights = jnp.array([weight for _, weight in self.weights])
        return {"attribute_scores": scores, "score": jnp.sum(scores * weights[None, None], axis=-1)}


# From logits [R, P, C] to what a sum of several outputs is made of.
LINKS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "log_odds": lambda x: x - _others(x),
}


def _others(x: Float[Array, "R P C"]) -> Float[Array, "R P C"]:
    """log sum exp of all other classes' logits."""
    every = jnp.broadcast_to(x[..., None, :], (*x.shape, x.shape[-1]))
    own = jnp.eye(x.shape[-1], dtype=bool)[None, None]
    return jax.nn.logsumexp(jnp.where(own, -jnp.inf, every), axis=-1)


class Named(nn.Module):
    """The outputs of a stored classifier; the score is the sum of `weights` of what `link` makes of them.

    outputs: the name of their projection, "logits" or "attributes".
    """

    weights: tuple[float, ...]
    link: str
    outputs: str = "logits"
    hidden: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "R P D"]) -> dict[str, Array]:
        """{"logits" [R, P, C], "score" [R, P]}."""
        logits = Linear(len(self.weights), name=self.outputs)(hidden_layer(x, self.hidden))
        weights = jnp.array(self.weights)[None, None]
        return {"logits": logits, "score": jnp.sum(LINKS[self.link](logits) * weights, axis=-1)}


class RewardModel(nn.Module):
    """Transformer, pooling and head: packed rows in, a dict of arrays per text out."""

    transformer: Transformer
    head: Callable[[Float[Array, "R P D"]], dict[str, Array]]
    pooling: str

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "R T"],
        positions: Int[Array, "R T"],
        segments: Int[Array, "R T"],
        score_at: Int[Array, "R P"],
        row: Int[Array, " R"] | None = None,
        branches: Int[Array, "R T"] | None = None,
        tiles: Int[Array, "R N 2"] | None = None,
        embedded: Float[Array, "R T D"] | None = None,
        types: Int[Array, "R T"] | None = None,
    ) -> dict[str, Array]:
        """{"score" [R, P], ...} as the head offers; arguments as `Transformer` and `pool` say."""
        hidden, _ = self.transformer(
            tokens, positions, segments, row, branches, tiles=tiles, embedded=embedded, types=types
        )
        pooled = pool(hidden, positions, segments, score_at, branches, pooling=self.pooling)
        return self.head(pooled)


# The `head` line of a config.


class Labels(NamedTuple):
    """What a head must know of the data that it is trained on."""

    scale: tuple[int, int] | None  # lowest and highest rating, where known whole numbers
    ties: bool = False  # whether a loss reads the tie width
    attributes: tuple[str, ...] = ()  # names of the attributes that texts are rated on


def scalar(labels: Labels, *, hidden: bool = False) -> nn.Module:
    """One score.

    hidden: a tanh layer before it, as the classifiers of BERT, RoBERTa and T5 have.
    """
    return Scalar(ties=labels.ties, hidden=hidden)


def classes(labels: Labels, *, hidden: bool = False) -> nn.Module:
    """A distribution over the whole-number ratings; the score is its mean; `hidden` as of `scalar`."""
    low, high = _known(labels.scale)
    values = tuple(float(v) for v in range(low, high + 1))
    return Classes(values=values, hidden=hidden)


def ordinal(labels: Labels) -> nn.Module:
    """A score, and thresholds between the whole-number ratings."""
    low, high = _known(labels.scale)
    return Ordinal(classes=high - low + 1)


def gaussian(labels: Labels) -> nn.Module:
    """A mean, which is the score, and a log-variance."""
    del labels
    return Gaussian()


def attributes(labels: Labels, *, weights: Mapping[str, float] | None = None) -> nn.Module:
    """A score for each attribute of the data; the score is their mean, or their weighted sum.

    weights: of attributes in the score, such as {'helpfulness': 1.0, 'verbosity': -0.2}; those it does not name
      count 0.
    """
    names = labels.attributes
    if not names:
        raise UserError("config key 'head': attributes() needs texts rated on named attributes; give such data, or "
                        "head='scalar()'")  # fmt: skip
    given = dict.fromkeys(names, 1 / len(names)) if weights is None else weights
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise UserError(
            f"config key 'head': attributes(weights=...) names {unknown}; the data has {', '.join(names)}"
        )
    return Attributes(weights=tuple((name, float(given.get(name, 0.0))) for name in names))


HEADS = {f.__name__: f for f in (scalar, classes, ordinal, gaussian, attributes)}


def _known(scale: tuple[int, int] | None) -> tuple[int, int]:
    if scale is None:
        raise UserError("config key 'head': classes() and ordinal() need whole-number ratings; give the scale, "
                        "as in data=\"file(path='...', low=1, high=5)\"")  # fmt: skip
    return scale
