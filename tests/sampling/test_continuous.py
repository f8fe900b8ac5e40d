"""Continuous batching: the samples are those of each prompt alone, whatever rows it shared and whenever it began."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.sampling import continuous, generate
from rmjax.sampling.filters import Settings
from tests.sampling.test_generate import VOCAB, K, make

C = 12
COUNT = 11
SETTINGS = Settings(C, temperature=1.3, stop_tokens=(2, 3, 4), pad_token=1)
RNG = np.random.default_rng(3)
PROMPTS = [RNG.integers(5, VOCAB, size=n) for n in RNG.integers(1, 9, size=COUNT)]


def waiting(numbers=range(COUNT), prompts=PROMPTS):
    keys = generate.sample_keys(jax.random.key(4), jnp.arange(COUNT), K)
    data = np.asarray(jax.random.key_data(keys))
    return [continuous.Waiting(prompts[i], data[i]) for i in numbers]


def alone(name, settings=SETTINGS, prompts=PROMPTS):
    """Each prompt's samples, generated in one batch that no row leaves."""
    keys = generate.sample_keys(jax.random.key(4), jnp.arange(COUNT), K)
    batch = generate.padded(prompts, max(map(len, prompts)), 1)
    made = generate.generate(*make(name), batch["tokens"], batch["lengths"], keys, settings)
    return jax.tree.map(np.asarray, made)


def same(found, want, numbers=range(COUNT)):
    assert len(found) == len(numbers)
    for one, i in zip(found, numbers, strict=True):
        for name in ("tokens", "lengths", "stopped"):
            np.testing.assert_array_equal(getattr(one, name), getattr(want, name)[i])
        np.testing.assert_allclose(one.log_probs, want.log_probs[i], atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma3", "t5"])
def test_samples_are_those_of_each_prompt_alone(name):
    want = alone(name)
    ends = want.lengths.max(axis=1)
    assert len(np.unique(ends)) > 3  # rows are replaced at different steps
    same(
        list(continuous.stream(*make(name), waiting(), SETTINGS, longest=8, rows=4, replaced=2)),
        want,
    )


def test_they_depend_on_no_batch_neighbor_or_time():
    want = alone("gpt2")
    for rows, replaced in ((1, 1), (3, 1), (16, 16)):
        found = continuous.stream(
            *make("gpt2"), waiting(), SETTINGS, longest=8, rows=rows, replaced=replaced
        )
        same(list(found), want)
    order = RNG.permutation(COUNT)[:7]
    found = continuous.stream(*make("gpt2"), waiting(order), SETTINGS, longest=8, rows=3)
    same(list(found), want, order)


def test_greedy_with_a_penalty_starts_each_row_afresh():
    settings = SETTINGS._replace(temperature=0.0, repetition_penalty=2.0)
    found = continuous.stream(*make("llama"), waiting(), settings, longest=8, rows=3, replaced=1)
    same(list(found), alone("llama", settings))


def test_a_longer_prompt_waits_for_room():
    prompts = [*PROMPTS[:5], RNG.integers(5, VOCAB, size=40), *PROMPTS[6:]]
    found = continuous.stream(
        *make("llama"), waiting(prompts=prompts), SETTINGS, longest=40, rows=3
    )
    same(list(found), alone("llama", prompts=prompts))


def test_programs_are_compiled_once():
    model, variables = make("qwen3")
    compiled = lambda: sum(
        f._cache_size() for f in (continuous._read, continuous.refill, continuous._decode)
    )
    before = compiled()
    list(continuous.stream(model, variables, waiting(), SETTINGS, longest=8, rows=4, replaced=3))
    assert compiled() == before + 3


def test_prompts_are_taken_as_rows_become_free():
    taken = []

    def asked():
        for i, one in enumerate(waiting()):
            taken.append(i)
            yield one

    found = continuous.stream(*make("gpt2"), asked(), SETTINGS, longest=8, rows=1)
    for i, _ in enumerate(itertools.islice(found, 3)):
        assert taken == list(range(i + 1))
    assert list(continuous.stream(*make("gpt2"), [], SETTINGS, longest=8, rows=4)) == []
    with pytest.raises(ValueError, match="rows 2 and replaced 3"):
        next(continuous.stream(*make("gpt2"), waiting(), SETTINGS, longest=8, rows=2, replaced=3))
    with pytest.raises(ValueError, match="more than longest=2"):
        list(continuous.stream(*make("gpt2"), waiting(), SETTINGS, longest=2, rows=2))
