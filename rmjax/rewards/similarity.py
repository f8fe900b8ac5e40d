"""How close a completion comes to the reference, by words, by embeddings or by shared n-grams.

Legend: N completions, D width of vectors. Every reward is float32 [N]; a completion without words scores 0.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import regex
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from rmjax.rewards.words import words_of

_HAN = regex.compile(r"\p{Han}")
_SPACELESS = regex.compile(r"[\p{Hira}\p{Kana}\p{Thai}\p{Lao}\p{Khmr}\p{Mymr}\p{Tibt}]")


def word_aligned(
    completions: Sequence[str],
    references: Sequence[str],
    word_vectors: Callable[[Sequence[Sequence[str]]], list[np.ndarray]],
) -> np.ndarray:
    """Mean over the completion's words i of the cosine of word i and the reference's word i, in [-1, 1].

    Words past the reference's end count 0. Words are characters in scripts without spaces.
    word_vectors: vectors of the words [words, D] of each text.
    """
    split = [(words_of(c), words_of(r)) for c, r in zip(completions, references, strict=True)]
    rewards = np.zeros(len(split), np.float32)
    both = [i for i, (made, wanted) in enumerate(split) if made and wanted]
    if both:
        made = word_vectors([split[i][0] for i in both])
        wanted = word_vectors([split[i][1] for i in both])
        for i, a, b in zip(both, made, wanted, strict=True):
            shared = min(len(a), len(b))
            rewards[i] = np.sum(_cosine(a[:shared], b[:shared])) / len(a)
    return rewards


def embedding_cosine(
    completions: Sequence[str],
    references: Sequence[str],
    embed: Callable[[Sequence[str]], np.ndarray],
) -> np.ndarray:
    """Cosine of the embeddings of completion and reference, in [-1, 1].

    embed: embeddings of texts [N, D].
    Raises: ValueError if sizes differ.
    """
    made, wanted = (np.asarray(embed(texts)) for texts in (completions, references))
    if made.shape != wanted.shape:
        raise ValueError(f"embeddings differ in shape: {made.shape} and {wanted.shape}")
    written = np.array([bool(c.strip()) for c in completions], bool)
    return np.where(written, _cosine(made, wanted), 0).astype(np.float32)


def bleu(completions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Sentence BLEU over orders that the completion has (exponential smoothing), in [0, 1].

    Tokens by the reference's script: "zh" of sacrebleu with Chinese characters, "char" where most letters are of
    another script without spaces, else "13a".
    Source: Papineni et al. 2002; by sacrebleu (Post 2018).
    """
    pairs = zip(completions, references, strict=True)
    scores = [_bleu(_tokenizer(r)).sentence_score(c, [r]).score for c, r in pairs]
    return np.clip(np.array(scores, np.float32) / 100, 0, 1)


def chrf(
    completions: Sequence[str], references: Sequence[str], *, word_order: int = 0
) -> np.ndarray:
    """Sentence chrF: F2 of character n-grams up to 6, in [0, 1].

    word_order: longest n-grams of words that count too, >= 0; 2 makes it chrF++.
    Raises: ValueError if it is negative.
    Source: Popović 2015, 2017; by sacrebleu (Post 2018).
    """
    if word_order < 0:
        raise ValueError(f"word_order must not be negative, got {word_order}")
    metric = CHRF(word_order=word_order)
    pairs = zip(completions, references, strict=True)
    scores = [metric.sentence_score(c, [r]).score for c, r in pairs]
    return np.clip(np.array(scores, np.float32) / 100, 0, 1)


def rouge(
    completions: Sequence[str], references: Sequence[str], *, kind: str = "rougeL"
) -> np.ndarray:
    """F1 of ROUGE, in [0, 1], over words in lower case without stemming.

    kind: "rouge1" or "rouge2" (n-grams), or "rougeL" (longest common subsequence).
    Words are those of `words`: the package's own tokenizer would drop every letter but a to z.
    Raises: ValueError on another kind.
    Source: Lin 2004; by rouge-score.
    """
    if kind not in ("rouge1", "rouge2", "rougeL"):
        raise ValueError(f"kind must be one of rouge1, rouge2, rougeL, got {kind!r}")
    scorer = _rouge(kind)
    pairs = zip(completions, references, strict=True)
    return np.array([scorer.score(r, c)[kind].fmeasure for c, r in pairs], np.float32)


class _Words:
    """What rouge-score takes for a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return [w.casefold() for w in words_of(text)]


@functools.cache
def _rouge(kind: str):
    # Imported here: it loads all of nltk, which takes seconds.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_Words())


@functools.cache
def _bleu(tokenizer: str) -> BLEU:
    return BLEU(effective_order=True, tokenize=tokenizer)


def _tokenizer(text: str) -> str:
    spaceless = len(_SPACELESS.findall(text))
    if 2 * spaceless > sum(map(str.isalpha, text)) - len(_HAN.findall(text)):
        return "char"
    return "zh" if _HAN.search(text) else "13a"


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64; 0 with a zero vector."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.sum(a * b, axis=-1) / np.where(norms > 0, norms, 1)
