"""Rules: scores that no one had to train, and that a trained model must beat."""

import functools
from collections.abc import Sequence

import numpy as np


def length(texts: Sequence[str]) -> np.ndarray:
    """Characters of each text, float32 [N]."""
    return np.array([len(t) for t in texts], np.float32)


def vader(texts: Sequence[str]) -> np.ndarray:
    """VADER's compound sentiment in [-1, 1], float32 [N].

    Source: Hutto & Gilbert 2014, by their own package.
    """
    return np.array([_analyzer().polarity_scores(t)["compound"] for t in texts], np.float32)


@functools.cache
def _analyzer():
    # Imported here: the package reads its lexicon, and few runs need it.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
