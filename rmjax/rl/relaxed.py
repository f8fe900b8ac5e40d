"""A frozen reward model that reads what a policy writes token for token, so that its score has a gradient there.

Legend: R rows, T tokens, L tokens to predict and P texts in a row, V vocabulary.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rmjax import lookup
from rmjax.data import language
from rmjax.data.encode import Reader, encode
from rmjax.data.language import Reads
from rmjax.data.records import RatedText, Record
from rmjax.data.tokenizer import UNLIMITED
from rmjax.errors import UserError
from rmjax.inference import backbones, normalization, scoring
from rmjax.models import relaxation
from rmjax.models.transformer import Config
from rmjax.train import checkpoint
from rmjax.train.state import Params, collections

PROBED = 16  # records whose reading is compared


class FrozenReward(NamedTuple):
    """A reward model of the policy's own vocabulary.

    apply: linen's, of a causal `RewardModel` that scores last tokens. params: its parameters by path.
    level, scale: a score is (raw - level) / scale.
    stop: the policy's token of ending. reads_stop: whether the reward model reads one behind every answer, or none.
    """

    apply: Callable[..., Any]
    params: dict[str, np.ndarray]
    level: float
    scale: float
    stop: int
    reads_stop: bool


def check(config: Any, read: Collection[str]) -> None:
    """Raises: UserError on lines that do not go with relaxed(). read: the arrays that the config's losses read."""
    if not config.relaxation > 0:
        raise UserError(f"config key 'relaxation': must be positive, got {config.relaxation}")
    if "relaxed_reward" in read and config.rollout_epochs * config.minibatches > 1:
        raise UserError(
            "config keys 'rollout_epochs', 'minibatches': relaxed() learns from samples of the policy as it is, so one "
            "update a rollout; set both to 1"
        )


def reward(
    frozen: FrozenReward, temperature: float
) -> Callable[[Params, Any, Array, Array], Array]:
    """Returns relaxed(params, batch, logits [R, L, V], key) -> scores [R, P] of the samples of a packed batch.

    They are those of the tokens as they were drawn; backward a token to predict is the softmax of the logits that it
    was drawn from, with noise given the draw. Texts of weight 0, as those of the data set, pass no gradient.
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
        read, at = _reading(frozen, batch, embedded, table[frozen.stop])
        made = frozen.apply(collections(params), score_at=at, **read)
        return (made["score"] - frozen.level) / frozen.scale

    return relaxed


def _reading(
    frozen: FrozenReward, batch: Any, embedded: Array, ending: Array
) -> tuple[dict[str, Array], Array]:
    """What the reward model reads, and the last place of each text in it [R, P].

    Samples cut by length get a stop token here, behind the row, where the model reads one; where it reads none, the
    texts of others end before theirs. ending: the embedding of a stop token.
    """
    last = batch["score_at"]
    own = lambda name: jnp.take_along_axis(batch[name], last, axis=1)
    stopped = own("tokens") == frozen.stop
    names = ("tokens", "positions", "segments", "branches")
    read = {name: batch[name] for name in names if name in batch}
    if not frozen.reads_stop:
        ends = batch["target_at"][:, :, None] == last[:, None]
        before = jnp.max(jnp.where(ends, batch["source_at"][:, :, None], 0), axis=1)
        return read | {"embedded": embedded}, jnp.where(stopped, before, last)
    cut = (batch["text_weight"] > 0) & ~stopped
    more = {
        "tokens": jnp.full_like(last, frozen.stop),
        "positions": own("positions") + 1,
        "segments": jnp.where(cut, own("segments"), 0),  # of no text where none is needed
        "branches": own("branches") if "branches" in batch else None,
        "embedded": jnp.broadcast_to(ending, (*last.shape, len(ending))),
    }
    read["embedded"] = embedded
    grown = {name: jnp.concatenate([x, more[name]], axis=1) for name, x in read.items()}
    behind = batch["tokens"].shape[1] + jnp.arange(last.shape[1])[None]
    return grown, jnp.where(cut, behind, last)


def load(config: Any, reads: Reads, records: Sequence[Record], *, whole: bool) -> FrozenReward:
    """The model of the config's `reward_model`.

    reads: how the policy reads. records: to train on. whole: prompt and answer are one text to a reward model.
    Raises: UserError where there is none, or it is no single decoder of the policy's vocabulary that scores last
      tokens of whatever the policy may write.
    """
    source = config.reward_model
    refuse = lambda why: UserError(
        f"config key 'reward_model': relaxed() differentiates a reward model of the policy's own vocabulary, and "
        f"{source!r} {why}; train one by --config.model=\"trained(workdir='...')\" on the policy's run"
    )
    best = Path(source) / "checkpoints/best"
    if not source or checkpoint.latest(best) is None:
        raise refuse("is no finished run's folder")
    about = checkpoint.about(best)
    if "stop" in about:
        raise refuse("is a language model's")
    reader, shape = backbones.reader_of(about), Config(**about["transformer"])
    if reader.tokenizer.to_json() != reads.reader.tokenizer.to_json():
        raise refuse("has another one")
    if shape.kind != "decoder" or about["pooling"] != "last":
        raise refuse(
            f"is of kind {shape.kind!r} and pools by {about['pooling']!r}, not a 'decoder' by 'last'"
        )
    if about["unscored"] is not None:
        raise refuse("is scored before a token that texts end with")
    if about["config"]["seeds"] > 1:
        raise refuse("is an ensemble")
    longest = config.max_prompt + config.max_new_tokens + 1  # a stop token behind what was cut
    if reader.max_length < longest:
        raise refuse(f"reads {reader.max_length} tokens of up to {longest}")
    level, scale = 0.0, 1.0
    if not lookup.off(about["config"]["normalize"], key="normalize"):
        fixed = normalization.load(Path(source))
        level, scale = fixed.mean[0], fixed.scale[0]
    reads_stop = _reads_stop(reader, reads, records[:PROBED], whole=whole)
    if reads_stop is None:
        raise refuse(
            "reads answers as other tokens than the policy writes (by its template or special tokens)"
        )
    held = Path(source) / "checkpoints/frozen"
    params = {} if checkpoint.latest(held) is None else checkpoint.restore(held)["frozen"]
    params = {**params, **checkpoint.restore(best)["params"]}
    apply, stop = scoring.module_of(about).apply, reads.stop_ids[0]
    return FrozenReward(apply, params, level, scale, stop, reads_stop)


def _reads_stop(
    reader: Reader, reads: Reads, records: Sequence[Record], *, whole: bool
) -> bool | None:
    """Whether the reward model reads answers with the policy's stop token behind them; None: as other tokens."""
    answers = [language.answers(r, compare=False)[0] for r in records]
    asked = [
        RatedText("", "", "", cast(str, r.prompt) + a, 0.0)
        if whole
        else RatedText("", "", "", a, 0.0, prompt=r.prompt)
        for r, a in zip(records, answers, strict=True)
    ]
    read = encode(asked, reader).examples.tokens
    made = language.encode(records, reads, UNLIMITED).examples
    found = set()
    for text, record in zip(made.tokens, made.per_text["record"], strict=True):
        for written, with_stop in ((text, True), (text[:-1], False)):
            if np.array_equal(written, read[record]):
                found.add(with_stop)
    return found.pop() if len(found) == 1 else None
