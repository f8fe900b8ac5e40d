"""Rules: rewards that no one had to train, and that a trained one must beat.

Legend: N completions. Every reward is float32 [N], and that of a completion does not depend on the others.
"""

import functools
import json
import re
from collections.abc import Sequence

import numpy as np

from rmjax.rewards.patterns import compiled
from rmjax.rewards.words import words_of


def characters(completions: Sequence[str]) -> np.ndarray:
    """How many characters (code points) each has."""
    return np.array([len(t) for t in completions], np.float32)


def length(
    completions: Sequence[str], *, target: int, tolerance: int = 0, unit: str = "words"
) -> np.ndarray:
    """1 at the target length, falling linearly to 0 at a distance of `target` from what is tolerated; in [0, 1].

    target: length wanted, > 0; tolerance: how far off costs nothing, >= 0.
    unit: "words" (characters in scripts without spaces) or "characters".
    Raises: ValueError on options outside their range.
    """
    if target <= 0 or tolerance < 0:
        raise ValueError(
            f"target must be positive, tolerance not negative, got {target} and {tolerance}"
        )
    _one_of("unit", unit, ("words", "characters"))
    sizes = np.array([len(words_of(t) if unit == "words" else t) for t in completions], np.float32)
    off = np.maximum(np.abs(sizes - target) - tolerance, 0)
    return np.maximum(1 - off / target, 0).astype(np.float32)


def regex(completions: Sequence[str], *, pattern: str, whole: bool = False) -> np.ndarray:
    """1 where the pattern matches, else 0.

    pattern: a regular expression of Python's re; "." matches no line break unless the pattern says (?s).
    whole: whether it must match the whole completion, not just anywhere in it.
    Raises: ValueError if it is no regular expression.
    """
    found = compiled(pattern)
    match = found.fullmatch if whole else found.search
    return np.array([match(t) is not None for t in completions], np.float32)


def format(
    completions: Sequence[str], *, sections: Sequence[str] = ("think", "answer")
) -> np.ndarray:
    """1 where the completion is <a>..</a> <b>..</b> of all sections a, b .. in order, and nothing else; otherwise 0.

    Space may stand between sections; a tag of theirs that occurs again makes 0.
    sections: names of the tags, one or more, distinct.
    Raises: ValueError if they are not.
    Source: the format reward of DeepSeek-AI 2025 (arXiv:2501.12948) section 2.2.2.
    """
    _names("sections", sections)
    if len(set(sections)) < len(sections):
        raise ValueError(f"sections must be distinct, got {sections}")
    tags = [tag for name in sections for tag in (f"<{name}>", f"</{name}>")]
    parts = [f"{re.escape(tags[k])}.*?{re.escape(tags[k + 1])}" for k in range(0, len(tags), 2)]
    shape = re.compile(r"\s*" + r"\s*".join(parts) + r"\s*", re.DOTALL)
    # Counted first: with each tag there once, the pattern has one way to match, and takes linear time.
    good = lambda t: all(t.count(tag) == 1 for tag in tags) and shape.fullmatch(t) is not None
    return np.array([good(t) for t in completions], np.float32)


def repetition(completions: Sequence[str], *, n: int = 3) -> np.ndarray:
    """Less the share of n-grams of words that occurred before in the completion; in (-1, 0], 0 of fewer than n words.

    n: words of an n-gram, >= 1.
    Raises: ValueError if it is less.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rewards = []
    for text in completions:
        words = [w.casefold() for w in words_of(text)]
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        rewards.append(len(set(grams)) / len(grams) - 1 if grams else 0.0)
    return np.array(rewards, np.float32)


def keywords(
    completions: Sequence[str], *, words: Sequence[str], mode: str = "share"
) -> np.ndarray:
    """Which keywords a completion has, as whole words (runs of characters in scripts without spaces), in any case.

    words: one or more keywords or phrases, not of punctuation alone.
    mode: "share" (of the keywords that are present), "any" (1 if at least one is), "none" (1 if none is); in [0, 1].
    Raises: ValueError on other options.
    """
    _names("words", words)
    _one_of("mode", mode, ("share", "any", "none"))
    # With a mark around each word, a run of words is a substring.
    marked = lambda text: "".join(f"\n{w.casefold()}\n" for w in words_of(text))
    wanted = [marked(w) for w in words]
    if not all(wanted):
        raise ValueError(f"words must have letters, digits or symbols, got {words}")
    share = np.array([np.mean([w in text for w in wanted]) for text in map(marked, completions)])
    value = {"share": share, "any": share > 0, "none": share == 0}[mode]
    return value.astype(np.float32)


def json_validity(completions: Sequence[str], *, required: Sequence[str] = ()) -> np.ndarray:
    """1 where the completion is JSON and nothing else, else 0; NaN and Infinity are no JSON, nor what nests too deeply.

    required: keys that it must have, being an object then.
    """
    if isinstance(required, str):
        raise ValueError(f"required must be a list of keys, got {required!r}")

    def refuse(name: str):
        raise ValueError(f"{name} is no JSON")

    def valid(text: str) -> bool:
        try:  # whole numbers as floats, which may have any number of digits
            value = json.loads(text, parse_constant=refuse, parse_int=float)
        except (ValueError, RecursionError):
            return False
        return not required or (isinstance(value, dict) and all(k in value for k in required))

    return np.array([valid(t) for t in completions], np.float32)


def missing_stop(stopped: np.ndarray, *, penalty: float = -1.0) -> np.ndarray:
    """The penalty where a completion was cut off before a stop token, else 0; `combine` has it in place of a score.

    stopped: whether each ended with one, bool [N].
    Source: Ouyang et al. 2022 and Huang et al. 2024 (arXiv:2403.17031) penalize so.
    """
    return np.where(stopped, 0, penalty).astype(np.float32)


def vader(completions: Sequence[str]) -> np.ndarray:
    """VADER's compound sentiment in [-1, 1].

    Source: Hutto & Gilbert 2014, by their own package.
    """
    return np.array([_analyzer().polarity_scores(t)["compound"] for t in completions], np.float32)


@functools.cache
def _analyzer():
    # Imported here: the package reads its lexicon, and few runs need it.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def _one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{option} must be one of {', '.join(allowed)}, got {value!r}")


def _names(option: str, values: Sequence[str]) -> None:
    # A single string is a sequence of letters, which no one means.
    if isinstance(values, str) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{option} must be a list of one or more strings, got {values!r}")
