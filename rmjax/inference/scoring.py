"""A trained model as a function from records to scores, fresh from training or from a run folder alone.

Legend: S seeds, N records, M scored places.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from rmjax import lookup
from rmjax.data import language, pipeline
from rmjax.data.encode import Counts, Encoded, Reader, conversations, encode
from rmjax.data.examples import Examples
from rmjax.data.language import Reads
from rmjax.data.records import Messages, Pair, RatedText, Record
from rmjax.errors import UserError
from rmjax.inference import backbones, normalization
from rmjax.models import attention, heads, shardings
from rmjax.models.outputs import Outputs as StoredOutputs
from rmjax.models.transformer import Config
from rmjax.train import checkpoint, forward, parallel

Outputs = Mapping[
    str, np.ndarray
]  # what a head gives, by name: "score", perhaps "logits" and others
Score = Callable[[PyTree, Examples], Outputs]


class Scored(NamedTuple):
    """Scores of records, each seed's as `kinds` says of theirs: [S, N] or [S, N, K]; beside them all that the head
    gives, raw: [S, N, ..] or [S, N, K, ..]; and what happened to texts as they were read."""

    scores: np.ndarray
    outputs: Outputs
    counts: Counts


class Scorer(NamedTuple):
    """A reward model ready for use; one model a seed.

    raw(examples): float32 [S, M, ..], before normalization. config: as it was trained. kind: of the records it was
    trained on, as `Data.kind`. notes: how it reads, in words. reads: how the language model of an implicit reward
    reads; None of others. outputs: what those of a stored classifier are.
    """

    raw: Callable[[Examples], Outputs]
    normalization: normalization.Normalization | None
    reader: Reader
    config: Any
    kind: str
    notes: Sequence[str] = ()
    reads: Reads | None = None
    outputs: StoredOutputs | None = None

    def records(self, found: Sequence[Record]) -> np.ndarray:
        """Scores of records, as of `Scored`."""
        return self.scored(found).scores

    def scored(self, found: Sequence[Record]) -> Scored:
        """Scores of records of one kind."""
        if self.reads is None:
            made = encode(found, self.reader)
        else:
            made = language.encode(found, self.reads, self.reader.max_length, compare=True)
        return self._scored(found, made)

    def conversations(self, found: Sequence[Messages]) -> Scored:
        """Scores of whole conversations [S, N], whoever speaks last and whatever their messages hold."""
        made = conversations(found, self.reader)
        return self._scored([RatedText("", "", "", "", 0.0)] * len(found), made)

    def _scored(self, found: Sequence[Record], made: Encoded) -> Scored:
        values = self.raw(made.examples)
        by_record = {name: _by_record(x, made.examples, found) for name, x in values.items()}
        raw = by_record["score"]
        scores = raw if self.normalization is None else self.normalization.apply(raw)
        return Scored(scores, by_record, made.counts)


def make_score(
    run: Callable,
    layout: parallel.Layout,
    frozen: PyTree,
    seeds: int,
    pad_id: int,
    tiling: pipeline.Tiling | None = None,
) -> Score:
    """Returns score(placed params, examples) -> the head's arrays, float32 [S, M, ..], one a scored place.

    run: as `forward.scores` gives. Parameters that a head offers (thresholds, tie width) are repeated for every place.
    Compiled once a shape.
    tiling: how the model's attention is cut into tiles; None: it takes none.
    """

    def rows(params, frozen, batch):
        made = {k: v for k, v in run(params, frozen, batch, None).items() if k not in batch}
        lead = made["score"].shape
        every = lambda v: (
            v if v.shape[:2] == lead else jnp.broadcast_to(v[None, None], lead + v.shape)
        )
        return {name: every(v) for name, v in made.items()}

    compiled = layout.compile_rows(jax.vmap(rows, in_axes=(0, None, 0)) if seeds > 1 else rows)

    def score(params, examples):
        found = {"score": np.zeros((seeds, examples.first_place[-1]), np.float32)}
        for batch, which, places in pipeline.score_batches(
            examples, pad_id=pad_id, rows_multiple=layout.ways, tiling=tiling
        ):
            if seeds > 1:
                batch = {k: np.broadcast_to(v, (seeds, *v.shape)) for k, v in batch.items()}
            for name, made in compiled(params, frozen, layout.put_batch(batch)).items():
                own = made.shape[2 + (seeds > 1) :]
                into = found.setdefault(name, np.zeros((*found["score"].shape, *own), np.float32))
                into[:, which] = made.reshape(seeds, -1, *own)[:, places]
        return found

    return score


def tiling(config: Config) -> pipeline.Tiling:
    """How attention of a transformer is cut into tiles."""
    return pipeline.Tiling(attention.TILE, causal=config.kind == "decoder")


def records(
    score: Callable[[Examples], Outputs], reader: Reader, found: Sequence[Record]
) -> np.ndarray:
    """Scores of records: float32 [S, N] of texts, [S, N, 2] of pairs, else [S, N, K], NaN after a record's own."""
    made = encode(found, reader).examples
    return _by_record(score(made)["score"], made, found)


def _by_record(values: np.ndarray, made: Examples, found: Sequence[Record]) -> np.ndarray:
    """Arrays of scored places in the shapes of `records`, with their own axes behind them."""
    seeds, own = len(values), values.shape[2:]
    if isinstance(found[0], RatedText):
        return values
    if isinstance(found[0], Pair):
        return values.reshape(seeds, -1, 2, *own)
    groups = np.arange(len(found))[:, None] if made.fixed is None else made.fixed
    sizes = np.array([made.places(g) for g in groups])
    padded = np.full((seeds, len(found), sizes.max(), *own), np.nan, np.float32)
    padded[:, np.arange(sizes.max()) < sizes[:, None]] = values
    return padded


def load(workdir: Path, *, normalized: bool = True, special_tokens: str = "") -> Scorer:
    """The best model of a finished run, from its folder and nothing else.

    normalized: False while the normalization is still to be fixed.
    special_tokens: as of `model.reader`, in place of how the run read them.
    Raises: UserError where the folder holds no trained model, or its files do not fit together.
    """
    best = workdir / "checkpoints/best"
    if checkpoint.latest(best) is None:
        raise UserError(
            f"{workdir} holds no checkpoints/best; is it the folder of a run? Finish that first, by the command "
            "it was begun with"
        )
    about = checkpoint.about(best)
    if "stop" in about:
        raise UserError(
            f"{workdir} is a language model's run, not a reward model's; name one of experiments.train_reward"
        )
    config: Any = ConfigDict(about["config"])
    backbones.check_reading(workdir, about)
    reader = backbones.reader_of(about, special_tokens)
    layout = parallel.one_device(shardings.spec, config.seeds)
    held = workdir / "checkpoints/frozen"
    frozen = {} if checkpoint.latest(held) is None else checkpoint.restore(held)["frozen"]
    params = layout.put(checkpoint.restore(best)["params"])
    score = make_score(
        forward.scores(module_of(about).apply),
        layout,
        layout.put(frozen, stacked=False),
        config.seeds,
        reader.tokenizer.pad_id,
        tiling(Config(**about["transformer"])),
    )
    wanted = normalized and not lookup.off(config.normalize, key="normalize")
    return Scorer(
        lambda examples: score(params, examples),
        normalization.load(workdir) if wanted else None,
        reader,
        config,
        about["kind"],
        _notes(about, reader),
    )


def _notes(about: Mapping[str, Any], reader: Reader) -> list[str]:
    """How a run's model reads, in words."""
    scored = about["pooling"] == "last" and about["kind"] != "processes"
    notes = [reader.rule()] if scored else []
    if reader.template is not None and reader.template.date:
        notes.append(f"the chat template renders the date {reader.template.date}")
    if about["dtype"] != "float32":
        notes.append(f"scores are computed in {about['dtype']}, as in training")
    return notes


def module_of(about: dict[str, Any]) -> Any:
    """The module that a checkpoint's description is of."""
    config: Any = ConfigDict(about["config"])
    scale = tuple(about["scale"]) if about["scale"] else None
    labels = heads.Labels(scale, about["ties"], tuple(about["attributes"]))
    head = lookup.bind(config.head, heads.HEADS, key="head")(labels)
    adapter = lookup.bind(config.adapter, backbones.ADAPTERS, key="adapter")()
    shape = Config(**about["transformer"])
    return backbones.reward_model(
        shape, head, about["pooling"], dtype=about["dtype"], adapter=adapter
    )
