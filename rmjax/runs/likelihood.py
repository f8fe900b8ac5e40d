"""How well a language model predicts texts: their log-probabilities, and what these say of held-out documents.

Legend: N records' answers, R rows, P texts in a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from rmjax.data import language, pipeline
from rmjax.data.examples import Examples
from rmjax.data.records import Record
from rmjax.evaluation import statistics
from rmjax.train import forward, parallel

LogProbs = Callable[[PyTree, Examples], np.ndarray]


class Counted(NamedTuple):
    """Of each text: -log p in nats, its tokens to predict, its bytes."""

    nats: np.ndarray
    tokens: np.ndarray
    size: np.ndarray


def make_log_probs(
    apply: Callable, layout: parallel.Layout, frozen: PyTree, pad_id: int
) -> LogProbs:
    """Returns log_probs(placed params, examples) -> float32 [N], of each text's tokens to predict, at temperature 1."""
    run = forward.language(apply)
    rows = lambda params, frozen, batch: run(params, frozen, batch, None)["sequence_log_probs"]
    compiled = layout.compile_rows(rows)

    def log_probs(params: PyTree, examples: Examples) -> np.ndarray:
        found = np.zeros(len(examples.tokens), np.float32)
        batches = pipeline.score_batches(examples, pad_id=pad_id, rows_multiple=layout.ways)
        for batch, texts, places in batches:
            found[texts] = compiled(params, frozen, layout.put_batch(batch)).ravel()[places]
        return found

    return log_probs


def counted(log_probs: np.ndarray, examples: Examples, records: Sequence[Record]) -> Counted:
    """Nats, tokens and bytes of each record, the parts of one added up."""
    record = examples.per_text["record"]
    total = lambda x: np.bincount(record, x, len(records))
    tokens = np.diff(examples.first_target)
    size = np.array([len(language.answers(r, compare=False)[0].encode()) for r in records])
    return Counted(total(-log_probs), total(tokens), size)


def figures(found: Counted, documents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Nats per token and bits per byte of the texts, with 95% intervals over documents."""
    drawn = statistics.resample(documents)
    nats, tokens, size = drawn.sums(np.stack(found, axis=1)).T
    named = {"nats_per_token": nats / tokens, "bits_per_byte": nats / (size * np.log(2))}
    about = {
        "n": len(documents),
        "documents": len(set(documents)),
        "tokens": int(found.tokens.sum()),
    }
    return {name: statistics.interval(values)._asdict() | about for name, values in named.items()}
