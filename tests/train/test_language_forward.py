"""What a policy's losses read is that of each text alone, and one update is the same however the batch is split.

One batch of samples (3 to a prompt, which rows keep once) and of a data set's texts, and one objective of all kinds of
terms; devices, micro-batches and rows differ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmjax import lookup
from rmjax.assembly import objective as lines
from rmjax.data.examples import Examples
from rmjax.losses import LOSSES
from rmjax.models import presets, shardings
from rmjax.models.critics import Value
from rmjax.models.policy import Policy
from rmjax.models.transformer import LanguageModel, Transformer
from rmjax.rl import packing
from rmjax.sampling.generate import Samples
from rmjax.train import forward, objective, parallel, state, step

CONFIG = presets.decoder(vocab_size=40, width=16, layers=1, max_positions=64)
TRANSFORMER = Transformer(CONFIG)
POLICY = Policy(TRANSFORMER, critic=Value())
TEMPERATURE = 0.7
LOSS = (
    "mle() + 0.5 * reinforce() + 0.4 * ppo() + 0.3 * clipped_value() + 0.2 * negative_entropy() + 0.3 * grpo()"
    " + 0.5 * minimum_risk() + 0.2 * off_policy() + 0.1 * linear_weighted() + 0.2 * reward_weighted()"
)
PROMPTS, SAMPLES, NEW = 12, 3, 5
TIGHT = packing.Bounds(PROMPTS, 24, 12, SAMPLES, 16, 16, 1, 1, 0)
LOOSE = TIGHT._replace(row_length=56, places=24)


@jax.jit
def initialize(key):
    one = jnp.ones((1, 1), jnp.int32)
    made = state.flatten(POLICY.init(key, one, one - 1, one, one - 1)["params"])
    # Far from uniform, and a critic that says something.
    noise = lambda x: 0.5 * jax.random.normal(key, x.shape)
    return {k: noise(x) if k.startswith("critic") else 4 * x for k, x in made.items()}


PARAMS = jax.tree.map(np.asarray, initialize(jax.random.key(0)))
RNG = np.random.default_rng(0)


def drawn():
    """Samples behind their prompts, and 20 texts of a data set that weigh differently."""
    ids = [RNG.integers(1, 40, RNG.integers(1, 8)).astype(np.int32) for _ in range(PROMPTS)]
    prompts = packing.Prompts(ids, np.arange(PROMPTS), [""] * PROMPTS, [""] * PROMPTS)
    size = (PROMPTS, SAMPLES, NEW)
    lengths = RNG.integers(1, NEW + 1, size[:2]).astype(np.int32)
    samples = Samples(
        RNG.integers(1, 40, size).astype(np.int32),
        np.zeros(size, np.float32),
        lengths,
        lengths < NEW,
    )
    tokens = [RNG.integers(1, 40, RNG.integers(2, 15)).astype(np.int32) for _ in range(20)]
    starts = np.array([RNG.integers(1, len(t)) for t in tokens])
    words = int(sum(map(len, tokens)) - starts.sum())
    weight = {
        "token_weight": np.ones(words, np.float32),
        "data_weight": RNG.uniform(0.3, 2, words).astype(np.float32),
    }
    data = Examples(
        tokens=tokens, ids=[""] * 20, weight=np.ones(20, np.float32), kin=np.zeros(20),
        per_text={"record": np.arange(20, dtype=np.int32)}, starts=starts, per_token=weight,
    )  # fmt: skip
    return packing.joined(packing.as_examples(samples, prompts), data)


EXAMPLES = drawn()
COUNT = PROMPTS * SAMPLES
PER_TEXT = {name: RNG.normal(size=COUNT) for name in ("advantage", "paid")}
NAMED = (
    "advantages",
    "old_log_probs",
    "reference_log_probs",
    "returns",
    "old_values",
    "standard_rewards",
)
PER_TOKEN = {name: RNG.normal(size=(COUNT, NEW)) for name in (*NAMED, "reward_weight")}
PER_TOKEN["reward_weight"] = np.abs(PER_TOKEN["reward_weight"])
for NAME in ("old_log_probs", "reference_log_probs"):
    PER_TOKEN[NAME] = PER_TOKEN[NAME] / 3 - 3.5


@functools.cache
def batch(bounds):
    laid = packing.lay(EXAMPLES, PROMPTS, bounds)
    where = packing.Places.of(laid, COUNT, NEW)
    return laid | where.packed({**PER_TEXT, **PER_TOKEN})


@functools.cache
def compiled(name, microbatches=1):
    layout = {"one_device": parallel.one_device, "pmap": parallel.pmap}[name](shardings.spec, 1)
    run = forward.language(POLICY.apply, temperature=TEMPERATURE)
    terms = lookup.terms(LOSS, LOSSES, key="loss")
    goal = lines.language(terms, run, {*lines.needs(terms)}, sampled=True)
    made = step.make_step(goal, optax.sgd(1.0), axis=layout.axis, microbatches=microbatches)
    return layout, layout.compile_step(made)


def update(given, name="one_device", microbatches=1):
    """Parameters after one step of plain gradient descent, and the step's means."""
    layout, run = compiled(name, microbatches)
    trained = {k: jnp.asarray(x) for k, x in PARAMS.items()}
    first = state.create(trained, optax.sgd(1.0).init(trained), jax.random.key(1))
    now, means = run(layout.put(first), layout.put({}), layout.put_batch(given))
    assert int(layout.value(now.bad_step)) == -1
    means = {n: float(layout.value(m.total) / layout.value(m.weight)) for n, m in means.items()}
    return jax.tree.map(np.asarray, layout.get(now.params)), means


@functools.cache
def reference():
    return update(batch(TIGHT))


def assert_same(got, want):
    for path, value in want[0].items():
        np.testing.assert_allclose(got[0][path], value, rtol=1e-5, atol=1e-5, err_msg=path)
    assert got[1] == pytest.approx(want[1], rel=1e-4, abs=1e-5)


@functools.cache
def alone():
    """What a plain pass over each text alone says of its tokens to predict: [N, T - 1]."""
    longest = int(EXAMPLES.lengths.max())
    tokens, segments = np.zeros((2, len(EXAMPLES.tokens), longest), np.int32)
    for row, text in enumerate(EXAMPLES.tokens):
        tokens[row, : len(text)], segments[row, : len(text)] = text, 1
    positions = np.broadcast_to(np.arange(longest, dtype=np.int32), tokens.shape)
    own = {k: x for k, x in PARAMS.items() if not k.startswith("critic")}
    model = LanguageModel(TRANSFORMER)
    logits, _ = jax.jit(model.apply)(state.collections(own), tokens, positions, segments)
    log_p = np.asarray(jax.nn.log_softmax(logits / TEMPERATURE))[:, :-1]
    said = np.take_along_axis(log_p, tokens[:, 1:, None], axis=2)[..., 0]
    entropy = -np.sum(np.exp(log_p) * log_p, axis=2)
    span = [
        slice(int(s) - 1, int(n) - 1)
        for s, n in zip(EXAMPLES.starts, EXAMPLES.lengths, strict=True)
    ]
    return [[x[i, span[i]] for x in (said, entropy)] for i in range(len(span))]


@functools.cache
def offered(bounds):
    run = forward.language(POLICY.apply, temperature=TEMPERATURE)
    return jax.tree.map(np.asarray, jax.jit(run, static_argnums=3)(PARAMS, {}, batch(bounds), None))


def places(laid):
    """(row, place) of every text: samples by their number, then texts of the data set by theirs."""
    found = {}
    for row, place in np.argwhere(np.diff(laid["text_of"], prepend=-1, axis=1) != 0):
        text = int(laid["text_of"][row, place])
        if text < laid["score_at"].shape[1]:
            sample = laid["text_weight"][row, text] > 0
            found[int(laid["record"][row, text]) + (0 if sample else COUNT)] = (int(row), text)
    return found


@pytest.mark.parametrize("bounds", [TIGHT, LOOSE])
def test_log_probs_are_those_of_each_text_alone(bounds):
    found, laid = offered(bounds), batch(bounds)
    where = places(laid)
    assert sorted(where) == [*range(COUNT + 20)]
    assert (laid["branches"] > 0).any() and laid["segments"].max() > 2  # shared, and packed
    for text, (row, place) in where.items():
        at = laid["text_of"][row] == place
        log_probs, entropy = alone()[text]
        np.testing.assert_allclose(found["log_probs"][row, at], log_probs, atol=1e-5)
        np.testing.assert_allclose(found["entropy"][row, at], entropy, atol=1e-5)
        assert found["sequence_log_probs"][row, place] == pytest.approx(log_probs.sum(), abs=2e-5)
        assert found["lengths"][row, place] == len(log_probs)
        if text < COUNT:
            old = PER_TOKEN["old_log_probs"][text, : len(log_probs)].sum()
            assert found["old_sequence_log_probs"][row, place] == pytest.approx(old, abs=1e-5)
    one = np.argwhere(laid["group_weight"] > 0)
    assert len(one) == PROMPTS
    for row, group in one:
        items = laid["group_items"][row, group]
        numbers = laid["record"][row, items]
        np.testing.assert_array_equal(
            found["group_log_probs"][row, group], found["sequence_log_probs"][row, items]
        )
        np.testing.assert_allclose(
            found["group_rewards"][row, group], PER_TEXT["paid"][numbers], rtol=1e-6
        )


@pytest.mark.parametrize("bounds", [TIGHT, LOOSE])
def test_the_state_behind_a_text_is_worth_what_it_is_worth_alone(bounds):
    found, laid = offered(bounds), batch(bounds)
    longest = int(EXAMPLES.lengths.max())
    tokens = jnp.asarray([np.pad(t, (0, longest - len(t))) for t in EXAMPLES.tokens])
    at = jnp.broadcast_to(jnp.arange(longest, dtype=jnp.int32), tokens.shape)
    own = state.collections(jax.tree.map(jnp.asarray, PARAMS))
    plain = POLICY.apply(own, tokens, at, jnp.ones_like(tokens), at)
    for text, (row, place) in places(laid).items():
        want = float(plain["values"][text, EXAMPLES.lengths[text] - 1])
        assert found["end_values"][row, place] == pytest.approx(want, abs=1e-5)
    assert np.ptp(found["end_values"]) > 0.1


def test_values_of_a_critic_of_actions_are_their_mean_and_only_its_own_slope():
    rows = {name: jnp.zeros((1, 3), jnp.int32) for name in ("positions", "segments", "source_at")}
    rows |= {"tokens": jnp.array([[0, 2, 1]]), "target_at": jnp.array([[1, 2, 0]])}
    rows |= {"score_at": jnp.zeros((1, 1), jnp.int32), "text_of": jnp.zeros((1, 3), jnp.int32)}
    apply = lambda variables, *inputs: dict(variables["params"])
    run = forward.language(apply, temperature=TEMPERATURE)
    rng = np.random.default_rng(1)
    logits, each = (jnp.asarray(rng.normal(size=(1, 3, 4)), jnp.float32) for _ in range(2))
    found = run({"logits": logits, "action_values": each}, {}, rows, None)
    share = jax.nn.softmax(logits / TEMPERATURE)
    np.testing.assert_allclose(found["values"], jnp.sum(share * each, axis=2), rtol=1e-5)
    own = np.eye(4)[[2, 1, 0]][None]
    np.testing.assert_allclose(found["q"], np.sum(own * each, axis=2), rtol=1e-6)
    assert "action_values" not in found
    value = lambda p: run(p, {}, rows, None)["values"].sum()
    slope = jax.grad(value)({"logits": logits, "action_values": each})
    assert not np.any(slope["logits"])
    np.testing.assert_allclose(slope["action_values"], share, rtol=1e-5)
    target = jnp.array([[0.5, -1.0, 2.0]])
    error = lambda p: LOSSES["q_error"](run(p, {}, rows, None)["q"], target).sum()
    slope = jax.grad(error)({"logits": logits, "action_values": each})
    want = own * (found["q"] - target)[..., None]
    np.testing.assert_allclose(slope["action_values"], want, rtol=1e-5, atol=1e-7)


def test_pairs_are_gathered_and_their_places_are_no_scores():
    both = {
        "score_at": jnp.zeros((1, 3), jnp.int32),
        "text_of": jnp.array([[0, 1, 1, 3]]),
        "log_probs": jnp.array([[-1.0, -2.0, -4.0, -99.0]]),
        "reference_log_probs": jnp.array([[-3.0, -1.0, -1.0, 7.0]]),
        "chosen": jnp.array([[1]]),
        "rejected": jnp.array([[0]]),
    }
    found = forward.sequences(both)
    want = {"chosen_log_probs": -6, "rejected_log_probs": -1, "chosen_reference": -2, "rejected_reference": -3,
            "chosen_lengths": 2, "rejected_lengths": 1}  # fmt: skip
    assert {name: float(found[name][0, 0]) for name in want} == want
    assert found["lengths"].tolist() == [[1, 2, 0]]
    apply = lambda variables, *inputs: {"logits": jnp.zeros((1, 4, 5))}
    rows = {name: jnp.zeros((1, 4), jnp.int32) for name in (*forward.LANGUAGE_INPUTS, "target_at")}
    found = forward.language(apply)({}, {}, {**rows, **both}, None)
    assert not {"chosen", "rejected"} & {*found} and "chosen_log_probs" in found


WEIGHTS = {
    "pair_weight": "bradley_terry exponential focal hinge rao_kupper robust squared_margin thurstone "
    "cpo dpo hinge_norm ipo orpo simpo slic",
    "text_weight": "attributes_mse binary_cross_entropy cross_entropy gaussian_nll huber mae mse ordinal process "
    "votes off_policy dr_grpo grpo reinforce kto relaxed",
    "group_weight": "info_nce listnet plackett_luce minimum_risk",
    "token_weight": "linear_weighted clipped_value kl_k1 kl_k2 kl_k3 negative_entropy policy_gradient ppo q_error "
    "squared_value",
    "data_weight": "mle",
    "reward_weight": "reward_weighted",
}  # fmt: skip


def test_every_loss_is_averaged_over_what_its_specification_says():
    assert {name: of for of, names in WEIGHTS.items() for name in names.split()} == {
        name: objective.weight_name(function) for name, function in LOSSES.items()
    }


@pytest.mark.parametrize(
    ("name", "microbatches"), [("pmap", 1), ("one_device", 2), ("pmap", 2)]
)  # fmt: skip
def test_devices_and_micro_batches_agree(name, microbatches):
    weight = batch(TIGHT)["token_weight"].reshape(8, -1).sum(axis=1)
    assert np.ptp(weight) > 1  # a mean of means would differ
    assert_same(update(batch(TIGHT), name, microbatches), reference())


def test_rows_agree():
    assert batch(LOOSE)["tokens"].shape != batch(TIGHT)["tokens"].shape
    assert_same(update(batch(LOOSE)), reference())
    moved = max(np.max(np.abs(reference()[0][k] - PARAMS[k])) for k in PARAMS)
    assert moved > 0.1  # of steps that agree to 1e-5


def test_as_many_token_slots_as_texts_change_nothing():
    laid = batch(LOOSE)
    more = laid["tokens"].shape[1] - laid["score_at"].shape[1]
    widen = lambda x, fill: np.pad(
        x, [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)], constant_values=fill
    )
    places = {
        name: widen(x, 0) for name, x in laid.items() if x.ndim > 1 and x.shape[1] == LOOSE.places
    }
    text_of = np.where(laid["text_of"] < LOOSE.places, laid["text_of"], LOOSE.row_length)
    same = {**laid, **places, "text_of": text_of.astype(np.int32)}
    assert same["text_weight"].shape == same["token_weight"].shape
    assert_same(update(same), reference())


def test_padded_slots_change_nothing_whatever_they_hold():
    laid = batch(TIGHT)
    padding = laid["text_of"] == TIGHT.places
    empty, nobody = laid["text_weight"] == 0, np.float32(np.nan)
    assert padding.any(axis=1).all() and padding.all(axis=1).any()
    spoiled = {name: np.where(padding, nobody, laid[name]) for name in NAMED}
    spoiled |= {name: np.where(empty, nobody, laid[name]) for name in PER_TEXT}
    spoiled["tokens"] = np.where(laid["segments"] == 0, 39, laid["tokens"]).astype(np.int32)
    assert_same(update(laid | spoiled), reference())
