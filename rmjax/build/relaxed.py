"""A frozen reward model that reads what a policy writes token for token, so that its score has a gradient there.

Legend: R rows, T tokens, L tokens to predict and P texts in a row, V vocabulary.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rmjax.errors import UserError
from rmjax.models import relaxation
from rmjax.train.state import Params, collections


class Judge(NamedTuple):
    """A reward model of the policy's own vocabulary.

    apply: linen's, of a causal `RewardModel` that scores last tokens. params: its parameters by path.
    level, scale: a score is (raw - level) / scale. unread: the token that ends answers and is not read; -1: all are.
    """

    apply: Callable[..., Any]
    params: dict[str, np.ndarray]
    level: float
    scale: float
    unread: int


def check(config: Any, read: Collection[str]) -> None:
    """Raises: UserError on lines that do not go with relaxed(). read: the arrays that the config's losses read."""
    if not config.relaxation > 0:
        raise UserError(f"config key 'relaxation': must be positive, got {config.relaxation}")
    if "relaxed_reward" in read and config.rollout_epochs * config.minibatches > 1:
        raise UserError(
            "config keys 'rollout_epochs', 'minibatches': relaxed() learns from samples of the policy as it is, so one "
            "update a rollout; set both to 1"
        )


def reward(judge: Judge, temperature: float) -> Callable[[Params, Any, Array, Array], Array]:
    """Returns relaxed(params, batch, logits [R, L, V], key) -> scores [R, P] of the samples of a packed batch.

    They are those of the tokens as they were drawn; backward a token to predict is the softmax of the logits that it
    was drawn from, with noise given the draw. Texts of weight 0, as those of the data set, pass no gradient. A sample
    cut by length is scored where it was cut.
    temperature: of the softmax.
    """

    def relaxed(params: Params, batch: Any, logits: Array, key: Array) -> Array:
        # Of the row's id, so that noise depends on no device or part.
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["row"])
        token = jnp.take_along_axis(batch["tokens"], batch["target_at"], axis=1)
        noise = jax.vmap(relaxation.noise_of)(keys, logits, token)
        table = params["transformer/tokens"]
        more = relaxation.slope(table, logits, noise, temperature=temperature)
        more = jnp.where(batch["token_weight"][..., None] > 0, more, 0.0)
        rows = jnp.arange(len(token))[:, None]
        embedded = table[batch["tokens"]].at[rows, batch["target_at"]].add(more)
        inputs = (batch[name] for name in ("tokens", "positions", "segments"))
        branches = {"branches": batch["branches"]} if "branches" in batch else {}
        at = _ends(batch, judge.unread)
        made = judge.apply(collections(params), *inputs, at, embedded=embedded, **branches)
        return (made["score"] - judge.level) / judge.scale

    return relaxed


def _ends(batch: Any, unread: int) -> Array:
    """The last place of each text that the reward model reads [R, P]: the one before a token `unread`."""
    last = batch["score_at"]
    own = batch["target_at"][:, :, None] == last[:, None]
    before = jnp.max(jnp.where(own, batch["source_at"][:, :, None], 0), axis=1)
    return jnp.where(jnp.take_along_axis(batch["tokens"], last, axis=1) == unread, before, last)
