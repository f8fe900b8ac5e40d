"""The `loss` line of a config: checked terms on the arrays that model and data offer."""

from collections.abc import Callable, Collection, Sequence

import jax.numpy as jnp

from rmjax import lookup
from rmjax.errors import UserError
from rmjax.losses import LOSSES
from rmjax.train import forward, objective

LANGUAGE_METRICS = {"log_prob": forward.log_prob}
SAMPLE_METRICS = {"log_prob": forward.log_prob, "entropy": forward.entropy}
PAIR_METRICS = {"accuracy": forward.accuracy, "gap": forward.gap}

# Two elements of every array that a loss may name, to call each loss once before anything loads.
_PROBES = {
    "thresholds": [-0.5, 0.5],
    "tie_width": 0.0,
    "label": [0, 1],
    "logits": [[0.0, 0.0, 0.0]] * 2,
    "shares": [[0.2, 0.3, 0.5]] * 2,
    "group_scores": [[0.0, 0.5, 1.0]] * 2,
    "group_ratings": [[1.0, 2.0, 2.0]] * 2,
    "group_mask": [[True, True, False]] * 2,
    "attribute_scores": [[0.0, 0.5]] * 2,
    "attribute_ratings": [[1.0, 2.0]] * 2,
    "attribute_mask": [[True, False]] * 2,
    "group_log_probs": [[-3.0, -2.0, -1.0]] * 2,
    "group_rewards": [[1.0, 0.0, 0.5]] * 2,
    "text_of": [0, 1],
}
_TWO = [0.25, 0.75]


def terms(loss: str, pair_arrays: Sequence[str]) -> list[lookup.Term]:
    """The terms of `loss`, each called once on two elements.

    Raises: UserError on an unknown loss or option, a refused value or combination of arrays, or an array of
      `pair_arrays` that no term reads.
    """
    if lookup.off(loss, key="loss"):
        raise UserError(
            "config key 'loss': 'none()' learns nothing; name a loss, or evolution such as 'open_es(deviation=0.02)'"
        )
    found = lookup.terms(loss, LOSSES, key="loss")
    read = {name for term in found for name in lookup.arrays(term.function)}
    unread = sorted(set(pair_arrays) - read)
    if unread:
        raise UserError(
            f"config key 'pair_arrays': {', '.join(unread)} is read by no term of loss={loss!r}"
        )
    for term in found:
        wanted = lookup.arrays(term.function)
        given = [n for n, required in wanted.items() if required or n in pair_arrays]
        try:
            term.function(**{name: jnp.asarray(_PROBES.get(name, _TWO)) for name in given})
        except ValueError as error:
            raise UserError(f"config key 'loss': {term.name}: {error}") from error
    return found


def needs(found: Sequence[lookup.Term]) -> set[str]:
    """The names of the arrays that the terms cannot do without."""
    return {n for t in found for n, required in lookup.arrays(t.function).items() if required}


def create(
    found: Sequence[lookup.Term], apply: Callable, offered: Collection[str]
) -> objective.Objective:
    """The objective of a reward model.

    offered: names of the arrays that the model's head and the batches hold.
    Raises: UserError where a term needs another.
    """
    missing = sorted(needs(found) - set(offered))
    if missing:
        raise UserError(f"config key 'loss': needs {', '.join(missing)}, which {_source(missing)}")
    metrics = PAIR_METRICS if "chosen" in offered else {}
    return objective.create(found, forward.scores(apply), metrics)


def language(
    found: Sequence[lookup.Term], run: objective.Forward, offered: Collection[str], *, sampled: bool
) -> objective.Objective:
    """The objective of a policy on what `forward.language` and the batch offer.

    offered: names of the arrays that the batch and the model hold. sampled: log the entropy too, whose cost is a
      fifth of a small model's step.
    Raises: UserError where a term needs another.
    """
    missing = sorted(needs(found) - set(offered))
    if missing:
        raise UserError(
            f"config key 'loss': needs {', '.join(missing)}, which {_language_source(missing)}"
        )
    return objective.create(found, run, SAMPLE_METRICS if sampled else LANGUAGE_METRICS)


def _language_source(missing: list[str]) -> str:
    if {"q", "q_target"} & set(missing):
        return (
            "samples and a critic of actions offer; set samples to 1 or more, critic='q()' and "
            "returns='expected_sarsa(discount=1.0)'"
        )
    if {"values", "returns", "old_values"} & set(missing):
        return "samples and a critic offer; set samples to 1 or more and critic='value()'"
    if "reward_weight" in missing:
        return "a reward and its weights offer; set reward, and weights to other than 'none()'"
    if "chosen_log_probs" in missing:
        return "pairs offer; give data of pairs or rankings, and samples=0"
    if "standard_rewards" in missing:
        return "a reward offers; set reward"
    if "old_sequence_log_probs" in missing:
        return "samples offer, or logged answers with log_prob and reward; set samples to 1 or more, or give such data"
    if "relaxed_reward" in missing:
        return "samples and a reward model offer; set samples to 1 or more, and reward_model"
    if {"advantage", "advantages", "group_rewards", "old_log_probs"} & set(missing):
        return "samples offer; set samples to 1 or more"
    return "no data and policy of such a config offer"


def _source(missing: list[str]) -> str:
    if any("log_probs" in name for name in missing):
        return "policies offer; experiments.optimize_policy has their losses"
    heads = {
        "logits": "classes()",
        "thresholds": "ordinal()",
        "log_variance": "gaussian()",
        "tie_width": "scalar()",
        "attribute_scores": "attributes()",
    }
    for name, head in heads.items():
        if name in missing:
            return f"the head {head} offers; set head={head!r}"
    if "chosen" in missing:
        return "pairs offer; set group_size to 2 or more, or give data of pairs"
    if "group_scores" in missing:
        return "rankings (completions of one prompt, with ratings or the best named) offer; give data of rankings"
    if "attribute_ratings" in missing:
        return "rated texts with ratings by attribute offer"
    if {"label", "shares", "probability"} & set(missing):
        return "rated texts with a known scale (and raters' own ratings, for shares) offer"
    return "rated texts offer; pairs without ratings do not"
