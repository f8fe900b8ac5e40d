"""The `head` line of a config: what a reward model makes of a text's hidden state."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn

from rmjax.errors import UserError
from rmjax.models import heads


class Labels(NamedTuple):
    """What a head must know of the data that it is trained on."""

    scale: tuple[int, int] | None  # lowest and highest rating, where known whole numbers
    ties: bool = False  # whether a loss reads the tie width
    attributes: tuple[str, ...] = ()  # names of the attributes that texts are rated on


def scalar(labels: Labels, *, hidden: bool = False) -> nn.Module:
    """One score.

    hidden: a tanh layer before it, as the classifiers of BERT, RoBERTa and T5 have.
    """
    return heads.Scalar(ties=labels.ties, hidden=hidden)


def classes(labels: Labels, *, hidden: bool = False) -> nn.Module:
    """A distribution over the whole-number ratings; the score is its mean; `hidden` as of `scalar`."""
    low, high = _known(labels.scale)
    values = tuple(float(v) for v in range(low, high + 1))
    return heads.Classes(values=values, hidden=hidden)


def ordinal(labels: Labels) -> nn.Module:
    """A score, and thresholds between the whole-number ratings."""
    low, high = _known(labels.scale)
    return heads.Ordinal(classes=high - low + 1)


def gaussian(labels: Labels) -> nn.Module:
    """A mean, which is the score, and a log-variance."""
    del labels
    return heads.Gaussian()


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
    return heads.Attributes(weights=tuple((name, float(given.get(name, 0.0))) for name in names))


HEADS = {f.__name__: f for f in (scalar, classes, ordinal, gaussian, attributes)}


def _known(scale: tuple[int, int] | None) -> tuple[int, int]:
    if scale is None:
        raise UserError("config key 'head': classes() and ordinal() need whole-number ratings; give the scale, "
                        "as in data=\"file(path='...', low=1, high=5)\"")  # fmt: skip
    return scale
