"""From a packed batch to the arrays that losses name.

Legend: R rows, P scored places in a row, L tokens to predict in a row, Q pairs in a row, G groups in a row, K texts in
a group, V vocabulary.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from rmjax.train.objective import Batch
from rmjax.train.state import collections

INPUTS = ("tokens", "positions", "segments", "score_at")
LANGUAGE_INPUTS = ("tokens", "positions", "segments", "source_at", "score_at")
ASKED = "asked/"  # begins the paths of a reward model's parameters among the frozen ones of a policy's step
_NOISE = 1  # folded into the step's key
OPTIONAL_INPUTS = (
    "branches",
    "tiles",
    "types",
    "encoder_tokens",
    "encoder_positions",
    "encoder_segments",
)


def scores(apply: Callable) -> Callable[[PyTree, PyTree, Batch, Array | None], dict[str, Array]]:
    """Returns forward(params, frozen, batch, rng) -> the model's arrays, the batch's, and pairs gathered.

    apply: linen's, of a model that maps INPUTS (and `row` for dropout, `branches`, `tiles`, `types`) to
      {"score" [R, P], ...}.
    rng: typed key of the dropout stream, or None for no dropout.
    """

    def forward(params, frozen, batch, rng):
        offered = {**batch, **_apply(apply, INPUTS, params, frozen, batch, rng)}
        if "chosen" in batch:  # indices into the row's texts
            for side in ("chosen", "rejected"):
                offered[side] = jnp.take_along_axis(offered["score"], batch[side], axis=1)
        if "group_items" in batch:
            offered["group_scores"] = _grouped(offered["score"], batch["group_items"])
        return offered

    return forward


def language(
    apply: Callable, *, temperature: float = 1.0, relaxed: Callable | None = None
) -> Callable[[PyTree, PyTree, Batch, Array | None], dict[str, Array]]:
    """Returns forward(params, frozen, batch, rng) -> the batch's arrays, and what losses read of a policy.

    apply: linen's, of a `Policy`. temperature: that texts are sampled at; it divides logits here as there.
    Of tokens [R, L]: log_probs, entropy (nats); with a critic values, of one of actions V = sum_a p Q, whose gradient
    is Q's alone, and beside them q, that of the token itself. Of texts [R, P]: sequence_log_probs (sums over a text's
    tokens to predict), lengths (their number), with a critic of states end_values, of the state behind the text; of
    pairs [R, Q] and groups [R, G, K] the same but for values, gathered. The sums of old_log_probs and
    reference_log_probs [R, L] where the batch holds these.
    relaxed: (parameters under ASKED, batch, logits [R, L, V], key) -> relaxed_reward [R, P]; None: it is not offered.
    """

    def forward(params, frozen, batch, rng):
        asked = {k.removeprefix(ASKED): x for k, x in frozen.items() if k.startswith(ASKED)}
        rest = {k: x for k, x in frozen.items() if not k.startswith(ASKED)}
        offered = {**batch, **_apply(apply, LANGUAGE_INPUTS, params, rest, batch, rng)}
        logits = offered.pop("logits").astype(jnp.float32) / temperature
        token = jnp.take_along_axis(batch["tokens"], batch["target_at"], axis=1)
        # Not by log_softmax: it would write all of [R, L, V] once more.
        total = jax.nn.logsumexp(logits, axis=2)
        own = jnp.take_along_axis(logits, token[..., None], axis=2)[..., 0]
        offered["log_probs"] = own - total
        share = jnp.exp(logits - total[..., None])
        offered["entropy"] = total - jnp.sum(share * logits, axis=2)
        if "action_values" in offered:
            each = offered.pop("action_values")
            offered["q"] = jnp.take_along_axis(each, token[..., None], axis=2)[..., 0]
            offered["values"] = jnp.sum(jax.lax.stop_gradient(share) * each, axis=2)
        if relaxed is not None:
            key = jax.random.fold_in(rng, _NOISE)
            offered["relaxed_reward"] = relaxed(asked, batch, logits, key)
        found = offered | sequences(offered)
        # Places of a pair's texts are no scores, which losses of these names take.
        return {name: x for name, x in found.items() if name not in ("chosen", "rejected")}

    return forward


def sequences(offered: Mapping[str, Array]) -> dict[str, Array]:
    """What `language` says of texts, pairs and groups, from arrays of tokens [R, L] and `text_of` [R, L]."""
    places = jnp.arange(offered["score_at"].shape[1])
    own = offered["text_of"][:, :, None] == places[None, None]
    total = lambda x: jnp.sum(jnp.where(own, x[..., None], 0.0), axis=1)
    found = {"lengths": jnp.sum(own, axis=1).astype(jnp.float32)}
    for prefix in ("", "old_", "reference_"):
        if f"{prefix}log_probs" in offered:
            found[f"{prefix}sequence_log_probs"] = total(offered[f"{prefix}log_probs"])
    named = {
        "log_probs": "sequence_log_probs",
        "reference": "reference_sequence_log_probs",
        "lengths": "lengths",
    }
    if "chosen" in offered:
        for side in ("chosen", "rejected"):
            for name, whole in named.items():
                if whole in found:
                    made = jnp.take_along_axis(found[whole], offered[side], axis=1)
                    found[f"{side}_{name}"] = made
    if "group_items" in offered:
        found["group_log_probs"] = _grouped(found["sequence_log_probs"], offered["group_items"])
        if "paid" in offered:
            found["group_rewards"] = _grouped(offered["paid"], offered["group_items"])
    return found


def _apply(apply, names, params, frozen, batch, rng) -> dict[str, Array]:
    """What a model offers of a batch; without a key there is no dropout."""
    variables = collections({**params, **frozen})
    inputs = [batch[name] for name in names]
    more = {name: batch[name] for name in OPTIONAL_INPUTS if name in batch}
    if rng is None:
        return apply(variables, *inputs, **more)
    return apply(variables, *inputs, row=batch["row"], **more, rngs={"dropout": rng})


def _grouped(values: Array, items: Array) -> Array:
    """Values of texts [R, P] at the places of each group's texts [R, G, K]."""
    found = jnp.take_along_axis(values, items.reshape(len(items), -1), axis=1)
    return found.reshape(items.shape)


def accuracy(chosen: Array, rejected: Array) -> Array:
    """1 where the preferred text scores higher, 1/2 at a tie, 0 otherwise; [*B]."""
    return jnp.where(chosen == rejected, 0.5, (chosen > rejected).astype(jnp.float32))


def gap(chosen: Array, rejected: Array) -> Array:
    """By how much the preferred text scores higher; [*B]."""
    return chosen - rejected


def entropy(entropy: Array) -> Array:
    """Nats per token; [R, L]."""
    return entropy


def log_prob(log_probs: Array) -> Array:
    """Nats per token, negative; [R, L]."""
    return log_probs


def dropout_key(data: Array, step: Array) -> Array:
    """The key of one step, from the run's key data; the same however often the run was resumed."""
    return jax.random.fold_in(jax.random.wrap_key_data(data), step)
