"""What a set of generated texts is like: length, repetition, diversity, and how well a model predicts it.

Texts come split into words (or tokens: any values that can be compared). Functions of single texts give one value a
text, [N]; the mean and its interval are `Resamples.mean` of them.
"""

from collections.abc import Hashable, Sequence

import numpy as np

Words = Sequence[Hashable]


def distinct(texts: Sequence[Words], n: int) -> float:
    """Share of the n-grams of all texts that are different ones, in (0, 1]; NaN where no text has n words.

    It falls as texts grow longer or more: compare sets of one size.
    Raises: ValueError if n < 1.
    Source: Li et al. 2016 (arXiv:1510.03055), distinct-n, over n-grams in place of words.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def lengths(texts: Sequence[Words]) -> np.ndarray:
    """Words of each text, float64 [N]."""
    return np.array([len(t) for t in texts], np.float64)


def repetition(texts: Sequence[Words], n: int = 3) -> np.ndarray:
    """Share of each text's n-grams that occurred before in it, [N] in [0, 1); 0 of fewer than n words.

    Raises: ValueError if n < 1.
    Source: Welleck et al. 2020 (arXiv:1908.04319), seq-rep-n.
    """
    all_grams = [_grams(text, n) for text in texts]
    return np.array([1 - len(set(g)) / len(g) if g else 0.0 for g in all_grams], np.float64)


def self_bleu(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """BLEU of each text against all others, [N] in [0, 1]: high where texts are alike; 0 of a text without words.

    Every text is compared with every other: sample a few hundred of more.
    Raises: ValueError if there are fewer than two texts.
    Source: Zhu et al. 2018 (arXiv:1802.01886); by sacrebleu, sentence level.
    """
    if len(texts) < 2:
        raise ValueError(f"self-BLEU needs two texts or more, got {len(texts)}")
    # Imported here: only this needs it.
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=True, tokenize="none")
    joined = [" ".join(t) for t in texts]
    scores = [
        metric.sentence_score(own, joined[:i] + joined[i + 1 :]).score
        for i, own in enumerate(joined)
    ]
    return np.clip(np.array(scores) / 100, 0, 1)


def figures(texts: Sequence[Words], stopped: np.ndarray) -> dict[str, float]:
    """What is logged of every rollout: means over its texts, and distinct-1 and -2 of them together.

    stopped: whether each text ended with a stop token, bool [N].
    """
    return {
        "length": float(np.mean(lengths(texts))),
        "repetition": float(np.mean(repetition(texts))),
        "missing_stop": float(np.mean(~np.asarray(stopped, bool))),
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
    }


def nats_per_token(nats: float, tokens: int) -> float:
    """Cross-entropy of a text in nats/token; its exponential is the perplexity.

    nats: -log p of all tokens, summed over the texts. tokens: how many these are, > 0.
    Raises: ValueError if there is none.
    """
    return nats / _some("tokens", tokens)


def perplexity(nats: float, tokens: int) -> float:
    """exp of nats/token, >= 1; infinite beyond what a float holds. Arguments as in `nats_per_token`."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(nats_per_token(nats, tokens))))


def bits_per_byte(nats: float, size: int) -> float:
    """Cross-entropy in bits/byte, which is comparable between tokenizers.

    nats: -log p of all tokens, summed over the texts. size: of these texts in UTF-8, bytes, > 0.
    Raises: ValueError if there is none.
    """
    return nats / (np.log(2.0).item() * _some("bytes", size))


def _some(what: str, count: int) -> int:
    if count < 1:
        raise ValueError(f"there must be {what} to divide by, got {count}")
    return count


def _grams(text: Words, n: int) -> list[tuple[Hashable, ...]]:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
