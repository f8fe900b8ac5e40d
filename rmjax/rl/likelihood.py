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
from rmjax.evaluation import importance, statistics
from rmjax.train import forward, parallel

LogProbs = Callable[[PyTree, Examples], np.ndarray]


class Counted(NamedTuple):
    """Of each record's answer: -log p in nats, its tokens to predict, its bytes, and of logs the log-probability under
    the policy that wrote it, NaN where the answer is not read whole."""

    nats: np.ndarray
    tokens: np.ndarray
    size: np.ndarray
    written: np.ndarray | None


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
    written = examples.per_text.get("old_sequence_log_probs")
    return Counted(
        total(-log_probs), total(tokens), size, None if written is None else total(written)
    )


def earned(
    found: Counted, records: Sequence[Record], documents: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What a policy of these log-probabilities would earn, from logged records that say reward and log_prob: an
    estimate with its 95% interval over documents, and how many texts it rests on; {} of other records."""
    rewards = language.rewards(records)
    whole = np.isfinite(np.nan if found.written is None else found.written)
    if rewards is None or found.written is None or not whole.any():
        return {}
    ratios, kept = (-found.nats - found.written)[whole], np.array(documents)[whole]
    about = {"n": len(kept), "documents": len(set(kept))}
    drawn = statistics.resample(kept.tolist())
    value = statistics.interval(importance.expected_reward(rewards[whole], ratios, drawn))
    rests = {"value": importance.effective_texts(ratios), "low": None, "high": None}
    return {"logged_reward": value._asdict() | about, "effective_texts": rests | about}


def figures(found: Counted, documents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Nats per token and bits per byte of the texts, with 95% intervals over documents."""
    drawn = statistics.resample(documents)
    columns = np.stack([found.nats, found.tokens, found.size], axis=1)
    nats, tokens, size = drawn.sums(columns).T
    named = {"nats_per_token": nats / tokens, "bits_per_byte": nats / (size * np.log(2))}
    about = {
        "n": len(documents),
        "documents": len(set(documents)),
        "tokens": int(found.tokens.sum()),
    }
    return {name: statistics.interval(values)._asdict() | about for name, values in named.items()}
