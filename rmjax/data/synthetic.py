"""Texts whose rating is known by construction, for tests and first looks: nothing to fetch."""

import numpy as np

from rmjax.data.records import Pair, RatedText, Text

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


def pairs(count: int, *, seed: int = 0) -> list[Pair]:
    """Two texts of `rated_texts` as answers to one prompt each, the one with the higher rating chosen."""
    texts, records = rated_texts(2 * count, seed=seed), []
    for i, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        better, worse = (a, b) if a.rating >= b.rating else (b, a)
        prompt = f"Review {i}: "
        records.append(Pair(f"{i}", "synthetic", f"{i}", prompt, better.text, worse.text))
    return records


def sums(count: int, most: int, *, seed: int = 0) -> list[Text]:
    """Different additions of two numbers from 0 to `most`, such as "7+15=" and its answer "22".

    Raises: ValueError if there are not so many.
    """
    if not 0 < count <= (most + 1) ** 2:
        raise ValueError(f"there are {(most + 1) ** 2} sums up to {most} + {most}, not {count}")
    drawn = np.random.default_rng(seed).permutation((most + 1) ** 2)[:count]
    asked = [divmod(int(i), most + 1) for i in drawn]
    return [Text(f"{a}+{b}", "sums", f"{a}+{b}", str(a + b), prompt=f"{a}+{b}=") for a, b in asked]


def logs(count: int, *, seed: int = 0) -> list[Text]:
    """Answers of a writer of two words, each drawn evenly from 14: what they earned (good words less bad ones, halved)
    and their log-probability, 2 log 1/14."""
    rng, words = np.random.default_rng(seed), GOOD + BAD
    drawn = rng.integers(len(words), size=(count, 2))
    earned = np.where(drawn < len(GOOD), 1, -1).sum(axis=1) / 2
    return [
        Text(
            f"{i}",
            "synthetic",
            f"{i}",
            " ".join(words[w] for w in drawn[i]),
            f"Review {i}: ",
            reward=float(earned[i]),
            log_prob=-2 * float(np.log(len(words))),
        )
        for i in range(count)
    ]
