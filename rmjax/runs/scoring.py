"""A trained model as a function from texts to scores, fresh from training or from a run folder alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from rmjax import lookup
from rmjax.build import model
from rmjax.data import chat, pipeline
from rmjax.data.examples import Examples, singles
from rmjax.data.records import Pair, RatedText, Record
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import shardings
from rmjax.models.transformer import Config
from rmjax.train import checkpoint, forward, parallel

Score = Callable[[PyTree, Examples], np.ndarray]


class Scorer(NamedTuple):
    """A reward model ready for use; one model a seed."""

    score: Callable[[Examples], np.ndarray]  # -> float32 [S, M], one a scored place
    tokenizer: Tokenizer
    max_length: int
    config: Any  # as it was trained
    paired: bool


def make_score(
    apply: Callable, layout: parallel.Layout, frozen: PyTree, seeds: int, pad_id: int
) -> Score:
    """Returns score(placed params, examples) -> float32 [S, M], one a scored place; compiled once a shape."""
    run = forward.scores(apply)
    rows = lambda params, frozen, batch: run(params, frozen, batch, None)["score"]
    rows = jax.vmap(rows, in_axes=(0, None, 0)) if seeds > 1 else rows
    compiled = layout.compile_rows(rows)

    def score(params, examples):
        scores = np.zeros((seeds, examples.first_place[-1]), np.float32)
        for batch, found, places in pipeline.score_batches(
            examples, pad_id=pad_id, rows_multiple=layout.ways
        ):
            if seeds > 1:
                batch = {k: np.broadcast_to(v, (seeds, *v.shape)) for k, v in batch.items()}
            made = compiled(params, frozen, layout.put_batch(batch))
            scores[:, found] = made.reshape(seeds, -1)[:, places]
        return scores

    return score


def load(workdir: Path) -> Scorer:
    """The best model of a finished run, from its folder and nothing else.

    Raises: UserError where the folder holds no trained model, or its files do not fit together.
    """
    best = workdir / "checkpoints/best"
    if checkpoint.latest(best) is None:
        raise UserError(
            f"{workdir} holds no checkpoints/best; is it the folder of a run? Finish that first, by the command "
            "it was begun with"
        )
    about = checkpoint.about(best)
    config: Any = ConfigDict(about["config"])
    tokenizer = Tokenizer.from_json(about["tokenizer"])
    scale = tuple(about["scale"]) if about["scale"] else None
    labels = model.Labels(scale, about["ties"], tuple(about["attributes"]))
    head = lookup.bind(config.head, model.HEADS, key="head")(labels)
    shape = Config(**about["transformer"])
    module = model.reward_model(shape, head, about["pooling"], dtype=about["dtype"])
    layout = parallel.one_device(shardings.spec, config.seeds)
    frozen_folder = workdir / "checkpoints/frozen"
    frozen = checkpoint.restore(frozen_folder)["frozen"] if config.frozen else {}
    params = layout.put(checkpoint.restore(best)["params"])
    score = make_score(
        module.apply, layout, layout.put(frozen, stacked=False), config.seeds, tokenizer.pad_id
    )
    return Scorer(
        lambda examples: score(params, examples),
        tokenizer,
        config.max_length,
        config,
        about["paired"],
    )


def records(
    score: Callable, tokenizer: Tokenizer, max_length: int, found: Sequence[Record]
) -> np.ndarray:
    """Scores of rated texts, float32 [S, N], or of pairs, [S, N, 2]: chosen, rejected."""
    texts = [r for r in found if isinstance(r, RatedText)]
    if texts:
        return score(singles(tokenizer.encode([r.text for r in texts], max_length)))
    pairs = [r for r in found if isinstance(r, Pair)]
    sides = []
    for side in ("chosen", "rejected"):
        rendered = [chat.render(r.prompt, getattr(r, side), None) for r in pairs]
        tokens, _ = tokenizer.encode_pairs(
            [p for p, _ in rendered], [c for _, c in rendered], max_length
        )
        sides.append(score(singles(tokens)))
    return np.stack(sides, axis=-1)
