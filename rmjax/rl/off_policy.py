"""Answers that are learned from by what they earned, without sampling: rewards, importance ratios, what is refused.

Legend: N texts.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from rmjax import lookup
from rmjax.data import language
from rmjax.data.examples import Examples
from rmjax.data.records import Record
from rmjax.errors import UserError
from rmjax.rl import baselines
from rmjax.rl.advantages import Credit

RATIO = "old_sequence_log_probs"  # what a loss reads that weighs answers by p / p_old
EARNED = {"advantage", "standard_rewards", "reward_weight"}  # made of rewards


def rewards(
    config: Any, terms: Sequence[lookup.Term], records: Sequence[Record]
) -> np.ndarray | None:
    """The rewards that the data give to their answers, float32 [N]; None where a reward line does, or none are read.

    records: to train on.
    Raises: UserError where importance ratios are to be had and a record has no log_prob, or some have no reward.
    """
    read = {name for t in terms for name in lookup.arrays(t.function)}
    if config.samples or not EARNED & read:
        return None
    weighed = [t.name for t in terms if RATIO in lookup.arrays(t.function)]
    if weighed and language.log_probs(records) is None:
        without = sum(getattr(r, "log_prob", None) is None for r in records)
        raise UserError(
            f"config key 'data': {without:,} of {len(records):,} training answers have no log_prob, their "
            f"log-probability under the policy that wrote them, which {weighed[0]}() needs; give each line one (as "
            "experiments.generate --logs writes them), or set samples to 1 or more"
        )
    if not lookup.off(config.reward, key="reward"):
        return None
    found = language.rewards(records)
    without = sum(getattr(r, "reward", None) is None for r in records)
    if found is None and (weighed or without < len(records)):
        raise UserError(
            f"config key 'reward': {without:,} of {len(records):,} training answers have no reward; give each line "
            "one, or name a reward"
        )
    return found


def rewarded(
    made: Examples, rewards: np.ndarray, credit: Credit, read: Collection[str], max_length: int
) -> Examples:
    """The texts with what losses read of their rewards; all texts are one group.

    rewards: of each record. read: the arrays that the terms read. max_length: tokens that texts were cut to.
    Raises: UserError where an importance ratio is to be had of an answer that is not read whole, or the baseline is
      one of rollouts.
    """
    own = np.asarray(rewards, np.float32)[made.per_text["record"]]
    spread = lambda x: np.repeat(np.asarray(x, np.float32), np.diff(made.first_target))
    per_text = dict(made.per_text)
    per_token = {"standard_rewards": spread(baselines.standardize(jnp.array(own)))}
    if credit.weigh is not None:
        per_token["reward_weight"] = spread(credit.of_texts(own)) * made.per_token["token_weight"]
    # Without a ratio the advantage of an answer that another policy wrote is no policy gradient's.
    if RATIO in read:
        if cut := int(np.isnan(made.per_text[RATIO]).sum()):
            raise UserError(
                f"config key 'max_length': {cut:,} logged texts do not fit in {max_length} tokens, so that their "
                "log_prob is not that of what is read; raise it, or leave them out"
            )
        per_text["advantage"] = credit.advantage_of_texts(own)
    return dataclasses.replace(made, per_text=per_text, per_token={**made.per_token, **per_token})
