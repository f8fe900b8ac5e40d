"""From samples to batches: of (seed, step) alone, every sample in one place, and parts that are the whole."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy
from rmjax.data import pipeline
from rmjax.data.encode import Reader
from rmjax.data.examples import Examples
from rmjax.data.language import Reads
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.rl import advantages, packing, returns, rollout
from rmjax.sampling.generate import Samples
from rmjax.sampling.keys import key_rows

BYTES = Tokenizer.bytes()
READS = Reads(Reader(BYTES, None, 99, True), (2,))
B, K, C = 6, 2, 5
BOUNDS = packing.Bounds(B, 24, 8, K, 0, 4, 2, 2, 0)


def ids(said):
    return BYTES.encode([said], 99)[0][:-1]


SAID = [f"{'ab' * (i % 3)}{i}" for i in range(20)]
PROMPTS = packing.Prompts([ids(t) for t in SAID], np.arange(20), SAID, [f"r{i}" for i in range(20)])


def data(count=9, seed=0):
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(3, 200, rng.integers(2, 20)).astype(np.int32) for _ in range(count)]
    starts = np.array([rng.integers(1, len(t)) for t in tokens])
    counted = np.repeat(rng.uniform(0.5, 2, count), [len(t) for t in tokens] - starts)
    return Examples(
        tokens=tokens, ids=["x"] * count, weight=np.ones(count, np.float32), kin=np.zeros(count),
        per_text={"record": np.arange(count, dtype=np.int32)}, fixed=list(np.arange(count)[:, None]),
        starts=starts, per_token={"token_weight": counted, "data_weight": counted},
    )  # fmt: skip


def sample(params, prompts, step, count):
    """Samples that are a function of the step and the prompt's number, as those of keys are."""
    tokens = np.zeros((len(prompts.ids), count, C), np.int32)
    lengths = tokens[..., 0].copy()
    for i, number in enumerate(prompts.number):
        rng = np.random.default_rng([step, number])
        lengths[i] = rng.integers(1, C + 1, count)
        tokens[i] = rng.integers(3, 200, (count, C))
    tokens[np.arange(C) >= lengths[..., None]] = 0
    log_probs = np.where(np.arange(C) < lengths[..., None], -params * tokens, 0).astype(np.float32)
    return Samples(tokens, log_probs, lengths, lengths < C)


def measure(params, batch):
    return {"log_probs": -params * np.take_along_axis(batch["tokens"], batch["target_at"], axis=1)}


def length(texts):
    return np.array([len(t) for t in texts.completions], np.float32)


DOES = rollout.Functions(sample, length, measure, lambda batch: measure(0.5, batch))


def plan(bounds=BOUNDS, texts=None, **more):
    c = get_config("tiny_rloo")
    c.update(more)
    return rollout.Plan(PROMPTS, texts, bounds, 0, 2.0, 8, C), advantages.plan(c)


def prepared(item, own, bounds=BOUNDS, seed=0, params=2.0):
    return rollout.prepare(
        DOES, own, bounds, rollout.answering(DOES, READS), seed=seed, max_kl=1e9
    )(params, own.start, item)


def test_an_item_twice_gives_the_same_batches_and_steps_differ():
    runs, own = plan()
    assert (runs.steps, runs.updates) == (
        6,
        6 * 2 * 2,
    )  # 3 rollouts an epoch, each learned from twice in 2 parts
    one, two = (prepared(runs.item(4), own) for _ in range(2))
    assert one[1] == two[1] and len(one[0]) == 4
    assert {*one[2]} == {*two[2]}
    np.testing.assert_equal(one[2], two[2])  # a NaN, of nothing to count, is one too
    for a, b in zip(one[0], two[0], strict=True):
        assert {*a} == {*b}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert prepared(runs.item(5), own)[2]["rollout/reward"] != one[2]["rollout/reward"]
    for epoch in (0, 1):  # within an epoch no prompt is met twice, and epochs differ
        numbers = np.concatenate([runs.item(k + 3 * epoch).prompts.number for k in range(3)])
        assert len({*numbers.tolist()}) == 3 * B
    assert np.any(runs.item(0).prompts.number != runs.item(3).prompts.number)
    moved = runs._replace(seed=1)
    assert np.any(moved.item(0).prompts.number != runs.item(0).prompts.number)


def test_keys_are_of_seed_step_prompt_and_sample_alone():
    keys = key_rows(0, 3, np.array([5, 9, 2]), 2)
    assert keys.shape == (3, 2, 2) and len({tuple(k) for k in keys.reshape(-1, 2).tolist()}) == 6
    np.testing.assert_array_equal(key_rows(0, 3, np.array([9]), 1)[0, 0], keys[1, 0])
    for seed, step in ((0, 4), (1, 3)):
        assert np.all(np.any(key_rows(seed, step, np.array([5, 9, 2]), 2) != keys, axis=2))


def test_parts_of_a_rollout_are_the_whole_once_an_epoch():
    runs, own = plan()
    whole, _, _ = prepared(runs.item(0), own, BOUNDS._replace(epochs=1, minibatches=1))
    parts, _, _ = prepared(runs.item(0), own)
    assert len(whole) == 1 and len(parts) == 4
    orders = []
    for epoch in (parts[:2], parts[2:]):
        assert {len(x) for part in epoch for x in part.values()} == {len(whole[0]["tokens"]) // 2}
        order = np.concatenate([part["row"] for part in epoch])
        assert sorted(order.tolist()) == [*range(len(whole[0]["tokens"]))]
        for name, x in whole[0].items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in epoch]), x[order])
        orders.append(order.tolist())
    assert orders[0] != orders[1]  # dealt anew


@pytest.mark.parametrize(("samples", "texts"), [(5, 3), (2, 7), (1, 1), (9, 0)])
def test_every_part_has_rows_of_each_kind_where_there_are_as_many(samples, texts):
    kind = np.zeros((16, 1), int)
    kind[:samples], kind[samples : samples + texts] = 1, 2
    batch = {
        "tokens": np.arange(16)[:, None],
        "token_weight": np.where(kind == 1, 0.5, 0.0),
        "data_weight": np.where(kind == 2, 0.1, 0.0),
    }
    seen = set()
    for seed in range(5):
        parts = packing.split(batch, BOUNDS, np.random.default_rng(seed))
        assert [len(part["tokens"]) for part in parts] == [8, 8]
        seen.add(tuple(parts[0]["tokens"].ravel().tolist()))
        for name, count in (("token_weight", samples), ("data_weight", texts)):
            each = [int(np.count_nonzero(part[name])) for part in parts]
            assert sum(each) == count and abs(each[0] - each[1]) <= 1
        assert all(np.any(p["token_weight"] + p["data_weight"]) for p in parts)
    assert len(seen) > 1  # dealt at random


def test_vtrace_is_made_anew_of_the_policy_as_it_then_is():
    lines = {"returns": "vtrace(rho_max=3.0)", "whiten": False, "kl": "fixed(beta=0.1)"}
    runs, own = plan(**lines)
    valued = lambda p, b: (
        {name: x / 100 for name, x in measure(p, b).items()}
        | {"values": p * np.ones(b["target_at"].shape, np.float32)}
    )
    drawn = lambda *a: (found := sample(*a))._replace(log_probs=found.log_probs / 100)
    does = DOES._replace(
        sample=drawn, measure=valued, reference=lambda b: {"log_probs": valued(0.5, b)["log_probs"]}
    )
    bounds = BOUNDS._replace(epochs=3)
    made = rollout.prepare(does, own, bounds, rollout.answering(does, READS), seed=0, max_kl=1e9)
    (one, two, *later), carry, _ = made(2.0, own.start, runs.item(0))
    assert len(later) == 2 and carry["seen"] == B * K
    samples = drawn(2.0, runs.item(0).prompts, 0, K)
    mask = (np.arange(C) < samples.lengths.reshape(-1, 1)).astype(np.float32)
    reward = length(packing.as_texts(samples, runs.item(0).prompts, READS))
    tokens = samples.tokens.reshape(-1, C) / 100
    last = np.arange(C) == samples.lengths.reshape(-1, 1) - 1
    paid = (-0.1 * -1.5 * tokens + last * reward[:, None]) * mask

    def check(parts, params):
        targets, advantages = returns.vtrace(
            jnp.asarray(paid), jnp.asarray(params * mask), jnp.asarray((2.0 - params) * tokens),
            jnp.asarray(mask), discount=1.0, rho_max=3.0,
        )  # fmt: skip
        want = {
            "advantages": advantages,
            "returns": targets,
            "old_values": params * mask,
            "old_log_probs": -2.0 * tokens,
        }
        seen = 0
        for part in parts:
            for row, place in np.argwhere(part["text_weight"] > 0):
                at, number = part["text_of"][row] == place, int(part["record"][row, place])
                seen += 1
                for name, x in want.items():
                    there = np.asarray(x)[number, mask[number] > 0]
                    np.testing.assert_allclose(part[name][row, at], there, rtol=1e-4, atol=1e-4)
        assert seen == B * K
        return advantages

    first = check([one, two], 2.0)
    for part, params in zip(later, (1.5, 1.0), strict=True):
        found = part(params)
        assert len(found) == 2 and {*found[0]} == {*one}
        assert np.max(np.abs(check(found, params) - first)) > 0.1


def test_each_sample_is_where_its_reward_and_its_credit_are():
    runs, own = plan(texts=None, kl="fixed(beta=0.25)", baseline="leave_one_out()")
    item = runs.item(2)
    (batch, *_), _, told = prepared(item, own, BOUNDS._replace(minibatches=1))
    samples = sample(2.0, item.prompts, 2, K)
    texts = packing.as_texts(samples, item.prompts, READS)
    assert texts.prompts[2] == texts.prompts[3] == SAID[item.prompts.number[1]]
    assert texts.references[3] == f"r{item.prompts.number[1]}"
    reward, seen = length(texts), []
    nats = -1.5 * samples.tokens.sum(axis=2)  # k1 of every sample: (2 - 1/2) of its log-probability
    paid = (reward.reshape(B, K) - 0.25 * nats).reshape(B, K)
    want = (paid - paid[:, ::-1]).ravel()
    for row, place in np.argwhere(batch["text_weight"] > 0):
        number = int(batch["record"][row, place])
        at = batch["text_of"][row] == place
        said = batch["tokens"][row, batch["target_at"][row, at]]
        kept = samples.tokens.reshape(-1, C)[number, : samples.lengths.ravel()[number]]
        np.testing.assert_array_equal(said, kept)
        assert batch["reward"][row, place] == reward[number]
        assert batch["advantage"][row, place] == pytest.approx(want[number], rel=1e-5)
        np.testing.assert_allclose(batch["advantages"][row, at], want[number], rtol=1e-5)
        np.testing.assert_allclose(batch["old_log_probs"][row, at], -2.0 * said)
        np.testing.assert_allclose(batch["reference_log_probs"][row, at], -0.5 * said)
        seen.append(number)
    assert sorted(seen) == [*range(B * K)]
    assert told["rollout/reward"] == pytest.approx(reward.mean())
    assert told["rollout/kl"] == pytest.approx(nats.mean(), rel=1e-5)
    assert told["rollout/length"] == pytest.approx(samples.lengths.mean())
    assert told["rollout/sampler_difference"] == 0
    assert told["rollout/missing_stop"] == pytest.approx(1 - samples.stopped.mean())


def test_parts_are_rewarded_while_the_next_is_sampled_and_change_nothing():
    runs, own = plan()
    item, sampling = runs.item(1), [threading.Event() for _ in range(3)]

    def begins(params, prompts, step, count):
        sampling[int(np.flatnonzero(item.prompts.number == prompts.number[0])[0]) // 2].set()
        return sample(params, prompts, step, count)

    def waits(texts):
        part = item.prompts.texts.index(texts.prompts[0]) // 2
        assert len(texts.completions) == 2 * K and sampling[min(part + 1, 2)].wait(60)
        return length(texts)

    does = DOES._replace(sample=begins, reward=waits)
    apart = rollout.prepare(
        does, own, BOUNDS, rollout.answering(does, READS, parts=3), seed=0, max_kl=1e9
    )
    found, whole = apart(2.0, own.start, item), prepared(item, own)
    assert found[1] == whole[1]
    np.testing.assert_equal(found[2], whole[2])
    for a, b in zip(found[0], whole[0], strict=True):
        np.testing.assert_equal(a, b)


def test_the_error_of_a_reward_is_that_of_the_rollout():
    runs, own = plan()

    def fails(texts):
        raise UserError("no reward")

    write = rollout.answering(DOES._replace(reward=fails), READS, parts=2)
    made = rollout.prepare(DOES, own, BOUNDS, write, seed=0, max_kl=1e9)
    with pytest.raises(UserError, match="no reward"):
        made(2.0, own.start, runs.item(0))


def test_what_the_sampler_said_wrongly_is_told():
    runs, own = plan()
    wrong = DOES._replace(measure=lambda params, batch: measure(params + 1e-3, batch))
    _, _, told = rollout.prepare(
        wrong, own, BOUNDS, rollout.answering(wrong, READS), seed=0, max_kl=1e9
    )(2.0, own.start, runs.item(0))
    most = 1e-3 * sample(2.0, runs.item(0).prompts, 0, K).tokens.max()
    assert told["rollout/sampler_difference"] == pytest.approx(most, rel=1e-3)


def test_a_policy_too_far_from_the_first_one_stops_the_run():
    runs, own = plan()
    near = lambda most: rollout.prepare(
        DOES, own, BOUNDS, rollout.answering(DOES, READS), seed=0, max_kl=most
    )
    _, _, told = near(1e9)(0.25, own.start, runs.item(3))  # less likely than the reference says
    assert told["rollout/kl"] > 1
    near(told["rollout/kl"])(0.25, own.start, runs.item(3))
    for params in (0.25, float("nan")):
        with pytest.raises(rollout.Exploded) as error:
            near(told["rollout/kl"] - 0.1)(params, own.start, runs.item(3))
        assert error.value.step == 3


def test_unpacking_is_the_inverse_of_packing():
    runs, _ = plan()
    item = runs.item(1)
    made = packing.joined(
        packing.as_examples(sample(1.0, item.prompts, 1, K), item.prompts), data()
    )
    batch = packing.lay(made, B, BOUNDS._replace(data_rows=8))
    where = packing.Places.of(batch, B * K, C)
    rng = np.random.default_rng(0)
    tokens, texts = rng.normal(size=(B * K, C)).astype(np.float32), rng.normal(size=B * K)
    there = where.packed({"tokens": tokens, "texts": texts})
    np.testing.assert_array_equal(where.unpack(there["tokens"]), tokens * where.mask)
    assert np.count_nonzero(there["tokens"]) == where.mask.sum() == batch["token_weight"].sum()
    assert np.count_nonzero(there["texts"]) == B * K
    assert np.all((there["tokens"] != 0) == (batch["token_weight"] > 0))


def test_texts_of_the_data_count_for_likelihood_alone_and_as_they_weigh():
    texts = data()
    plans = [[list(np.arange(9)[:, None][:5]), list(np.arange(9)[:, None][5:])]]
    shape = pipeline.Shape(4, 24, 8, 0, 8, 1, 0, 24)
    batches = pipeline.Batches(texts, plans, shape, 2, (), False, 4, 0, None)
    runs, own = plan(texts=batches, bounds=BOUNDS._replace(data_rows=8))
    seen = []
    for step in range(2):
        (batch, *_), _, _ = prepared(
            runs.item(step), own, BOUNDS._replace(data_rows=8, minibatches=1)
        )
        assert not np.any((batch["token_weight"] > 0) & (batch["data_weight"] > 0))
        there = np.argwhere(batch["data_weight"] > 0)
        for row, slot in there:
            text = int(batch["record"][row, batch["text_of"][row, slot]])
            assert batch["text_weight"][row, batch["text_of"][row, slot]] == 0
            own_weight = texts.per_token["data_weight"][texts.first_target[text]]
            assert batch["data_weight"][row, slot] == pytest.approx(own_weight)
            seen.append(text)
        for name in ("advantages", "old_log_probs", "standard_rewards"):
            assert not np.any(batch[name][batch["token_weight"] == 0])
        groups = np.argwhere(batch["group_weight"] > 0)
        assert len(groups) == B
    assert np.bincount(seen).tolist() == np.diff(texts.first_target).tolist()  # each once


def test_blank_batches_have_the_names_and_shapes_of_real_ones():
    for critic in ((), ("values",), ("values", "q")):
        runs, own = plan(returns="expected_sarsa()" if "q" in critic else "gae()")
        blank = rollout.blank(runs, own, critic)
        values = lambda p, b, c=critic: measure(p, b) | dict.fromkeys(c, b["target_at"] * 1.0)
        does = DOES._replace(measure=values) if critic else DOES
        bounds = BOUNDS._replace(minibatches=1)
        (real, *_), _, _ = rollout.prepare(
            does, own, bounds, rollout.answering(does, READS), seed=0, max_kl=1e9
        )(1.0, own.start, runs.item(0))
        assert {k: (x.dtype, x.shape[1:]) for k, x in real.items()} == {
            k: (x.dtype, x.shape[1:]) for k, x in blank.items()
        }
        assert [n in blank for n in ("returns", "q_target")] == [
            critic == ("values",),
            "q" in critic,
        ]


def test_few_numbers_of_rows_serve_all_rollouts():
    assert packing.quantized(1, BOUNDS) == 4 and packing.quantized(5, BOUNDS) == 8


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tiny_rloo", False),
        ("tiny_filtered", False),
        ("tiny_evolution", False),
        ("tiny_minimum_risk", True),  # an answer that it did not draw
        ("tiny_grpo", True),  # a ratio
        ("tiny_off_policy", True),
        ("tiny_actor_critic", True),
    ],
)
def test_samples_are_read_once_more_only_where_that_tells_something(name, wanted):
    c = get_config(name)
    plan = policy.plan(c)
    assert rollout.measures(c, plan.reads, plan.critic.offers) == wanted


def test_where_they_are_not_what_sampling_said_stands():
    runs, own = plan(kl="fixed(beta=0.25)")
    never = DOES._replace(measure=None)
    write = rollout.answering(never, READS)
    bounds = BOUNDS._replace(minibatches=1, epochs=1)
    made = rollout.prepare(never, own, bounds, write, seed=0, max_kl=1e9, measured=False)
    (batch,), _, told = made(2.0, own.start, runs.item(2))
    (whole,), _, more = prepared(runs.item(2), own, bounds)
    assert more.pop("rollout/sampler_difference") == 0
    np.testing.assert_equal(told, more)
    np.testing.assert_equal(batch, whole)
    samples = sample(2.0, runs.item(2).prompts, 2, K)
    mean = samples.log_probs.sum() / samples.lengths.sum()
    assert told["rollout/log_prob"] == pytest.approx(mean, rel=1e-5)
