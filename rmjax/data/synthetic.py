"""Texts whose rating is known by construction, for tests and first looks: nothing to fetch."""

import numpy as np

from rmjax.data.records import RatedText

GOOD = ("fine", "lovely", "superb", "brilliant", "charming", "delightful", "moving")
BAD = ("dull", "poor", "awful", "tedious", "clumsy", "dreadful", "hollow")
PLAIN = (
    "the",
    "film",
    "story",
    "scene",
    "actor",
    "score",
    "plot",
    "camera",
    "was",
    "felt",
    "seemed",
)


def rated_texts(count: int, *, seed: int = 0, raters: int = 10) -> list[RatedText]:
    """Texts of 4 to 16 words whose true rating is good words less bad ones, in [-4, 4], seen by noisy raters."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        good, bad = rng.integers(0, 4, size=2)
        words = [
            *rng.choice(GOOD, good),
            *rng.choice(BAD, bad),
            *rng.choice(PLAIN, rng.integers(4, 11)),
        ]
        noisy = np.clip(np.rint(good - bad + rng.normal(size=raters)), -4, 4)
        text = " ".join(rng.permutation(words))
        ratings = tuple(float(v) for v in noisy)
        records.append(RatedText(f"{i}", "synthetic", f"{i}", text, float(np.mean(noisy)), ratings))
    return records
