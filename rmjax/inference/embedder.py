"""Embeddings of texts and words by MiniLM, for rewards of similarity."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from rmjax.data import pipeline
from rmjax.data.examples import singles
from rmjax.inference import backbones
from rmjax.models import shardings
from rmjax.train import parallel
from rmjax.train.state import unflatten


def resources() -> dict[str, Callable]:
    """`embed` and `word_vectors`, as `rmjax.rewards.similarity` takes them.

    Each is the mean of the last hidden states, scaled to length 1; a word's is that of the word alone.
    """
    found = backbones.pretrained(source="minilm", pooling="mean")
    identity = lambda x: {"score": x}
    module = backbones.reward_model(found.config, identity, "mean", dtype="float32")  # pyright: ignore[reportArgumentType]
    layout = parallel.one_device(shardings.spec, 1)
    params = unflatten({k: jnp.asarray(x) for k, x in found.weights.items()})
    names = ("tokens", "positions", "segments", "score_at")
    rows = lambda params, _, batch: module.apply({"params": params}, *(batch[n] for n in names))
    compiled, longest = layout.compile_rows(rows), found.config.max_positions

    def embed(texts: Sequence[str]) -> np.ndarray:
        examples = singles(found.tokenizer.encode(texts, longest))
        vectors = np.zeros((len(texts), found.config.width), np.float32)
        for batch, which, places in pipeline.score_batches(examples, pad_id=found.tokenizer.pad_id):
            made = compiled(params, {}, layout.put_batch(batch))["score"]
            vectors[which] = made.reshape(-1, made.shape[-1])[places]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    known: dict[str, np.ndarray] = {}

    def word_vectors(texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        new = sorted({word for text in texts for word in text} - known.keys())
        if new:
            known.update(zip(new, embed(new), strict=True))
        width = found.config.width
        return [np.array([known[w] for w in text]).reshape(-1, width) for text in texts]

    return {"embed": embed, "word_vectors": word_vectors}
