"""The data's own answer as the last candidate of its prompt: learned from, and no figure of what the policy says."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy
from rmjax.data import language
from rmjax.data.encode import Reader
from rmjax.data.language import Reads
from rmjax.data.records import Text
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.losses.likelihood import minimum_risk
from rmjax.rl import advantages, candidates, packing, rollout
from rmjax.sampling.generate import Samples

BYTES = Tokenizer.bytes()
READS = Reads(Reader(BYTES, None, 99, True), (2,))
B, K, C = 3, 4, 6
RECORDS = [Text("i", "d", "o", said, "Q") for said in ("abc", "ab", "abcdefg")]
BOUNDS = packing.Bounds(B, 2 * C * K, 2 * K, K, 0, 1, 1, 1, 0)
# Three samples of two tokens a prompt, the first and the last alike; of a token t the log-probability is -t / 100.
SAID = np.array([[[11, 12], [13, 2], [11, 12]]] * B)


def sample(params, prompts, step, count):
    assert count == K - 1
    tokens = np.zeros((B, count, C), np.int32)
    tokens[..., :2] = SAID
    lengths, stopped = np.full((B, count), 2, np.int32), np.zeros((B, count), bool)
    return Samples(tokens, -params * tokens / 100, lengths, stopped)


def measure(params, batch):
    said = np.take_along_axis(batch["tokens"], batch["target_at"], axis=1)
    return {"log_probs": (-params * said / 100).astype(np.float32)}


def reward(texts):
    """1 for the data's own answer, nothing for others."""
    return np.array([a == b for a, b in zip(texts.completions, texts.references, strict=True)], np.float32)  # fmt: skip


def rolled(first=0.5, **lines):
    """The batch of one rollout with the data's answers, and what is told of it. first: the reference's parameters."""
    does = rollout.Functions(sample, reward, measure, lambda batch: measure(first, batch))
    c = get_config("tiny_minimum_risk")
    c.update({"samples": K, "batch_size": B, "kl": "fixed(beta=0.1)", **lines})
    prompts, _ = rollout.prompts_of(RECORDS, READS, 8)
    prompts = prompts._replace(answers=candidates.of_data(RECORDS, READS, C)[0])
    runs, own = rollout.Plan(prompts, None, BOUNDS, 0, 1.0, 8, C), advantages.plan(c)
    write = rollout.answering(does, READS)
    (batch,), carry, told = rollout.prepare(does, own, BOUNDS, write, seed=0, max_kl=1e9)(
        2.0, own.start, runs.item(0)
    )
    return runs.item(0).prompts, batch, carry, told


def by_number(batch, name):
    """An array [R, P] as [B, K], by prompt and candidate."""
    found = np.zeros(B * K, batch[name].dtype)
    for row, place in np.argwhere(batch["text_weight"] > 0):
        found[batch["record"][row, place]] = batch[name][row, place]
    return found.reshape(B, K)


def test_answers_of_the_data_are_read_as_training_reads_them_and_cut():
    found, notes = candidates.of_data(RECORDS, READS, C)
    assert notes == ["1 of the data's answers, candidates here, cut to 6 tokens"]
    trained = language.encode(RECORDS, READS, 99).examples
    for i, (tokens, start) in enumerate(zip(trained.tokens, trained.starts, strict=True)):
        n = found.lengths[i, 0]
        np.testing.assert_array_equal(found.tokens[i, 0, :n], tokens[start:][:C])
        assert not found.tokens[i, 0, n:].any()
    assert found.lengths.ravel().tolist() == [4, 3, 6]
    assert found.stopped.ravel().tolist() == [True, True, False]  # "abcdefg" and its stop are eight
    two = packing.Prompts([], np.arange(3), ["a", "b", "c"], ["", "", ""], (), found)
    assert two._replace(ids=[0, 1, 2]).take(np.array([2, 0])).answers.lengths.tolist() == [[6], [4]]


def test_the_last_candidate_is_the_datas_answer_with_its_reward_and_price():
    prompts, batch, _, _ = rolled()
    rewards, paid = by_number(batch, "reward"), by_number(batch, "paid")
    assert not rewards[:, :-1].any()  # "abcdefg" was cut, and is no longer what the data say
    assert rewards[:, -1].tolist() == [float(r != "abcdefg") for r in prompts.references]
    answers = prompts.answers.tokens[:, 0]
    np.testing.assert_allclose(paid[:, -1], rewards[:, -1] + 0.1 * 1.5 * answers.sum(1) / 100, rtol=1e-5)  # fmt: skip
    np.testing.assert_allclose(paid[:, 1], 0.1 * 1.5 * (13 + 2) / 100, rtol=1e-5)


def test_figures_are_of_what_the_policy_said():
    _, _, carry, told = rolled(kl="adaptive(beta=0.1, target=0.1, horizon=100)")
    nats = -1.5 * SAID.sum(axis=2) / 100
    assert told["rollout/kl"] == pytest.approx(nats.mean(), rel=1e-5)
    assert told["rollout/reward"] == told["rollout/reward_deviation"] == 0
    assert told["rollout/length"] == 2 and told["rollout/missing_stop"] == 1
    assert told["rollout/sampler_difference"] < 1e-6
    assert carry["seen"] == B * (K - 1)
    assert carry["beta"] == pytest.approx(0.1 * (1 - 0.2 * B * (K - 1) / 100))
    # Within the bounds of one step: the data's answers are many nats further from the reference.
    _, _, carry, told = rolled(3.0, kl="adaptive(beta=0.1, target=0.2, horizon=100)")
    assert told["rollout/kl"] == pytest.approx(nats.mean() / -1.5, rel=1e-5)
    error = told["rollout/kl"] / 0.2 - 1
    assert 0 < error < 0.1
    assert carry["beta"] == pytest.approx(0.1 * (1 + error * B * (K - 1) / 100))


def test_candidates_that_repeat_another_count_once():
    _, batch, _, _ = rolled()
    masks = batch["group_mask"][batch["group_weight"] > 0]
    assert masks.tolist() == [[True, True, False, True]] * B
    logs, rewards = jnp.array([-1.0, -2.0, -1.0, -3.0]), jnp.array([0.0, 1.0, 0.0, 2.0])
    kept = jnp.array([0, 1, 3])
    alone = minimum_risk(logs[kept], rewards[kept], jnp.ones(3, bool), alpha=0.5)
    np.testing.assert_allclose(minimum_risk(logs, rewards, jnp.array(masks[0]), alpha=0.5), alone)


@pytest.mark.parametrize("weights", ["boltzmann_weights(temperature=0.001)", "keep_best()"])
def test_where_the_datas_answer_is_best_only_it_is_learned_as_by_likelihood(weights):
    prompts, batch, _, _ = rolled(weights=weights, kl="none()")
    best = np.array([r != "abcdefg" for r in prompts.references])
    for row, place in np.argwhere(batch["text_weight"] > 0):
        number = batch["record"][row, place]
        if best[number // K]:
            own = batch["reward_weight"][row, batch["text_of"][row] == place]
            np.testing.assert_array_equal(own, float(number % K == K - 1))


@pytest.mark.parametrize(
    ("name", "lines", "named"),
    [
        ("tiny_rloo", {"data_answer": True}, "advantage, which"),
        ("tiny_minimum_risk", {"samples": 1, "baseline": "none()"}, "set samples to 2"),
        ("tiny_evolution", {"data_answer": True}, "population"),
        ("tiny_game", {"data_answer": True}, "no episodes"),
        ("tiny_reward_weighted", {"data_answer": True}, "samples=0 makes none"),
        ("tiny_raml", {"data_answer": True}, "how likely an answer was drawn"),
        ("tiny_minimum_risk", {"critic": "value()"}, "how likely an answer was drawn"),
        (
            "tiny_minimum_risk",
            {"loss": "minimum_risk() + 0.1 * kl_k1()"},
            "reads reference_log_probs",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(name, lines, named):
    c = get_config(name)
    c.update(lines)
    with pytest.raises(UserError, match="data_answer") as error:
        policy.plan(c)
    assert named in str(error.value)
