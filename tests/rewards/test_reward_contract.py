"""What every reward of the table owes its callers: a new reward is held to it, or fails here for want of an example."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmjax import lookup
from rmjax.rewards import REWARDS

OFFERED = {"completions", "prompts", "references", "stopped"}
RESOURCES = {"embed", "word_vectors", "score", "probabilities", "log_ratio", "table"}
NEEDED = {  # options that have no default, or without which nothing happens
    "length": {"target": 2},
    "regex": {"pattern": "a|b"},
    "keywords": {"words": ["a", "b c"]},
    "class_probability": {"label": 1},
    "looked_up": {"missing": 0.5},
    "unit_tests": {"allow_code": True},
}
INFINITE = (-math.inf, math.inf)
BOUNDS = {
    "characters": (0, math.inf),
    "length": (0, 1),
    "regex": (0, 1),
    "format": (0, 1),
    "repetition": (-1, 0),
    "keywords": (0, 1),
    "json_validity": (0, 1),
    "missing_stop": (-1, 0),
    "vader": (-1, 1),
    "exact_answer": (0, 1),
    "numeric_answer": (0, 1),
    "unit_tests": (0, 1),
    "word_aligned": (-1, 1),
    "embedding_cosine": (-1, 1),
    "bleu": (0, 1),
    "chrf": (0, 1),
    "rouge": (0, 1),
    "class_probability": (0, 1),
    "learned": INFINITE,
    "implicit": INFINITE,
    "looked_up": INFINITE,
}


def vector(text):
    """Some vector of the text alone, with small whole numbers, now and then zero."""
    seed = sum((i + 1) * ord(c) for i, c in enumerate(text)) % 97
    return np.random.default_rng(seed).integers(-2, 3, 3)


ARRAYS = {
    "embed": lambda texts: np.stack([vector(t) for t in texts]),
    "word_vectors": lambda texts: [np.stack([vector(w) for w in words]) for words in texts],
    "score": lambda prompts, texts: np.stack([[len(p), len(t)] for p, t in zip(prompts, texts, strict=True)], 1),
    "probabilities": lambda prompts, texts: np.array([[0, 1] if "a" in t else [1, 0] for t in texts]),
    "log_ratio": lambda prompts, texts: np.array([len(t) - 3 for t in texts]),
    "table": {"a": 1, "": 3},
}  # fmt: skip

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["", " \n", "😀👩‍👩‍👧", "a a a a", "我爱你们", "ภาษาไทย", "-1,234.5/0",
     '{"a": 1e999}', "\\frac{1}{2}", "```\n```", "<think>"]
)  # fmt: skip
rows = st.lists(st.tuples(texts, texts, st.booleans()), min_size=1, max_size=5)


def call(name, drawn):
    """The reward of rows of (completion, reference, stopped)."""
    completions, references, stopped = (list(v) for v in zip(*drawn, strict=True))
    if name == "numeric_answer":
        references = [r + " 7" for r in references]
    if name == "unit_tests":
        references = ["assert True"] * len(drawn)
    given = ARRAYS | {
        "completions": completions,
        "prompts": references,
        "references": references,
        "stopped": np.array(stopped),
    }
    reward = REWARDS[name]
    return reward(**{n: given[n] for n in lookup.arrays(reward)}, **NEEDED.get(name, {}))


def test_arguments_are_named_and_optioned_as_promised():
    assert set(REWARDS) == set(BOUNDS)
    for name, reward in REWARDS.items():
        assert set(lookup.arrays(reward)) <= OFFERED | RESOURCES, name
        assert all(lookup.arrays(reward).values()), name
        needed = {
            p.name
            for p in inspect.signature(reward).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        }
        assert needed <= set(NEEDED.get(name, {})), name


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"unit_tests"}))
@settings(max_examples=25, deadline=None, database=None)
@given(rows, st.randoms())
def test_any_text_has_a_bounded_float32_reward_whatever_its_neighbors(name, drawn, random):
    got = call(name, drawn)
    assert isinstance(got, np.ndarray) and got.dtype == np.float32 and got.shape == (len(drawn),)
    low, high = BOUNDS[name]
    assert np.all(np.isfinite(got)) and np.all(got >= low - 1e-6) and np.all(got <= high + 1e-6)
    order = random.sample(range(len(drawn)), len(drawn))
    np.testing.assert_array_equal(call(name, [drawn[i] for i in order]), got[order])
    np.testing.assert_array_equal(call(name, drawn[:1]), got[:1])


def test_a_sum_in_a_config_is_its_terms():
    terms = lookup.terms(
        "exact_answer(ignore_case=False) - 0.5 * length(target=2)", REWARDS, key="reward"
    )
    given = {"completions": ["a b", "A b c"], "references": ["a b", "a b c"]}
    total = sum(
        t.coef * t.function(**{n: given[n] for n in lookup.arrays(t.function)}) for t in terms
    )
    np.testing.assert_allclose(total, [1 - 0.5, -0.25])


@pytest.mark.parametrize(
    "name", [n for n, f in REWARDS.items() if "references" in lookup.arrays(f)]
)
def test_sizes_that_differ_are_refused(name):
    given = ARRAYS | {"completions": ["a", "b"], "references": ["assert 1"]}
    with pytest.raises(ValueError):
        REWARDS[name](**{n: given[n] for n in lookup.arrays(REWARDS[name])}, **NEEDED.get(name, {}))
