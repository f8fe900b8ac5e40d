"""From rewards to what losses read, by hand: 2 prompts, 2 samples of each; prices and baselines that are carried on."""

import ml_collections
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.errors import UserError
from rmjax.rl import advantages

MASK = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]], np.float32)
OLD = -np.array([[1, 1, 0], [2, 0, 0], [1, 2, 1], [1, 1, 0]], np.float32)
REFERENCE = OLD - np.array([[1, 2, 0], [0, 0, 0], [2, 0, 0], [-1, 0, 0]], np.float32)
KL = np.array([3, 0, 2, -1], np.float32)  # nats of each sample
REWARD = np.array([1, 2, 3, 8], np.float32)
KNOWN = {
    "reward": REWARD, "stopped": np.array([True, False, True, False]), "old_log_probs": OLD,
    "sampled_log_probs": OLD, "reference_log_probs": REFERENCE,
}  # fmt: skip


def plan(**more) -> advantages.Credit:
    c = ml_collections.ConfigDict(get_config("tiny_rloo"))
    c.update({"samples": 2, "kl": "none()", **more})
    return advantages.plan(c)


def made(known=KNOWN, carry=None, **more):
    own = plan(**more)
    return own(known, MASK, carry or own.start)


@pytest.mark.parametrize(
    ("baseline", "want"),
    [
        ("none()", REWARD),
        ("batch_mean()", REWARD - 3.5),
        ("leave_one_out()", [-1, 1, -5, 5]),
        ("group_centered()", [-0.5, 0.5, -2.5, 2.5]),
        ("group_normalized()", np.array([-0.5, 0.5, -2.5, 2.5]) / (np.array([0.5, 0.5, 12.5, 12.5]) ** 0.5 + 1e-4)),
    ],
)  # fmt: skip
def test_advantages(baseline, want):
    arrays, carry, told = made(baseline=baseline)
    np.testing.assert_allclose(arrays["advantage"], want, rtol=1e-5)
    np.testing.assert_allclose(arrays["advantages"], np.array(want)[:, None] * MASK, rtol=1e-5)
    np.testing.assert_array_equal(arrays["reward"], REWARD)
    assert (told["rollout/kl"], told["rollout/beta"], carry["seen"]) == (1.0, 0.0, 4)
    standard = (REWARD - 3.5) / np.std(REWARD)
    np.testing.assert_allclose(arrays["standard_rewards"], standard[:, None] * MASK, rtol=1e-5)
    assert "reward_weight" not in arrays and "returns" not in arrays


def test_a_nat_costs_its_price():
    paid = REWARD - 0.5 * KL  # -0.5, 2, 2, 8.5
    arrays, carry, told = made(kl="fixed(beta=0.5)", baseline="leave_one_out()")
    np.testing.assert_allclose(arrays["advantage"], [-2.5, 2.5, -6.5, 6.5])
    arrays, _, _ = made(kl="fixed(beta=0.5)", baseline="none()")
    np.testing.assert_allclose(arrays["advantage"], paid)
    assert carry["beta"] == told["rollout/beta"] == 0.5
    d = OLD - REFERENCE
    assert told["rollout/kl_k3"] == pytest.approx(np.sum(np.expm1(-d) + d) / 4)


def test_returns_and_advantages_of_tokens_with_a_critic():
    values = np.array([[1, 2, 9], [0, 9, 9], [1, 1, 1], [0, 4, 9]], np.float32)
    lines = {
        "kl": "fixed(beta=0.5)",
        "baseline": "none()",
        "returns": "gae(discount=1.0, decay=1.0)",
    }
    plain, _, _ = made(KNOWN | {"values": values}, whiten=False, **lines)
    # Each token pays half its nats, the last one also gains the reward; with decay 1 a return is all that comes.
    returns = np.array([[-0.5, 0, 0], [2, 0, 0], [2, 3, 3], [8.5, 8, 0]], np.float32)
    np.testing.assert_allclose(plain["returns"], returns)
    np.testing.assert_allclose(plain["advantages"], (returns - values) * MASK)
    np.testing.assert_array_equal(plain["old_values"], values)
    white, _, _ = made(KNOWN | {"values": values}, whiten=True, **lines)
    np.testing.assert_allclose(white["returns"], returns)  # of unwhitened advantages
    seen = (returns - values)[MASK > 0]
    want = (seen - seen.mean()) / np.sqrt(seen.var() + 1e-8)
    np.testing.assert_allclose(white["advantages"][MASK > 0], want, rtol=1e-5)
    assert not np.any(white["advantages"][MASK == 0])


def test_what_is_cut_is_worth_what_the_critic_says_of_its_end_where_that_is_asked_for():
    known = KNOWN | {"values": 0 * OLD, "end_values": np.array([10, 20, 30, 40], np.float32)}
    for name in ("gae(discount=0.5, decay=1.0)", "lambda_returns(discount=0.5, decay=1.0)",
                 "n_step(steps=9, discount=0.5)", "vtrace(discount=0.5)"):  # fmt: skip
        lines = {"returns": name, "whiten": False, "baseline": "none()"}
        plain, _, _ = made(known, **lines)
        # The second and the fourth did not stop: half of 20 and of 40, in place of rewards of 2 and 8.
        more = np.array([[0, 0, 0], [8, 0, 0], [0, 0, 0], [6, 12, 0]], np.float32)
        cut, _, _ = made(known, bootstrap=True, critic="value()", **lines)
        np.testing.assert_allclose(cut["returns"], plain["returns"] + more, err_msg=name)
        np.testing.assert_allclose(cut["advantages"], plain["advantages"] + more, err_msg=name)


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        ("exp_weights(beta=2.0, baseline=1.0, cap=4.0)", np.minimum(np.exp([0, 0.5, 1, 3.5]), 4)),
        ("keep_best()", [0, 1, 0, 1]),
        ("keep_above(quantile=0.5)", [0, 0, 1, 1]),
        # Log-probabilities of sampling are -2, -2, -4, -2: what was improbable stands for more.
        (
            "raml_weights(temperature=2.0)",
            [1 / (1 + np.exp(0.5)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(0.5)), 1 / (1 + np.exp(-0.5))],
        ),
    ],
)  # fmt: skip
def test_weights(weights, want):
    arrays, _, _ = made(weights=weights)
    np.testing.assert_allclose(arrays["reward_weight"], np.array(want)[:, None] * MASK, rtol=1e-5)


def test_what_a_text_counts_is_of_its_reward_less_the_price_of_its_divergence():
    arrays, _, _ = made(weights="keep_above(quantile=0.5)", kl="fixed(beta=2.0)")
    paid = REWARD - 2.0 * KL  # -5, 2, -1, 10: the second text in place of the third
    np.testing.assert_array_equal(arrays["reward_weight"], np.array([0, 1, 0, 1])[:, None] * MASK)
    np.testing.assert_array_equal(arrays["paid"], paid)
    standard = ((paid - paid.mean()) / paid.std())[:, None] * MASK
    np.testing.assert_allclose(arrays["standard_rewards"], standard, rtol=1e-5)


def test_texts_of_the_data_are_one_group():
    np.testing.assert_array_equal(plan(weights="keep_best()").of_texts(REWARD), [0, 0, 0, 1])
    own = plan(weights="boltzmann_weights(temperature=1.0)", samples=0)
    np.testing.assert_allclose(own.of_texts(REWARD), np.exp(REWARD) / np.exp(REWARD).sum(), rtol=1e-5)  # fmt: skip


def test_of_texts_of_the_data_no_chance_of_sampling_is_known():
    with pytest.raises(UserError, match=r"'weights': raml_weights\(\) divides by the chance of sampling"):  # fmt: skip
        plan(weights="raml_weights(temperature=1.0)", samples=0)


def test_the_price_follows_the_divergence():
    own = plan(kl="adaptive(beta=0.2, target=2.0, horizon=40)", baseline="none()")
    carry, seen = own.start, []
    for nats in (1.0, 2.2, -3.0):  # below the target, a little above, and far below
        known = KNOWN | {"reference_log_probs": OLD - nats * MASK / MASK.sum(axis=1, keepdims=True)}
        arrays, carry, told = own(known, MASK, carry)
        assert told["rollout/kl"] == pytest.approx(nats, rel=1e-5)
        np.testing.assert_allclose(arrays["advantage"], REWARD - told["rollout/beta"] * nats, rtol=1e-5)  # fmt: skip
        seen.append((told["rollout/beta"], carry["beta"]))
    # 4 of 40 episodes times an error clipped at 0.2.
    want = [0.2, 0.2 * 0.98, 0.2 * 0.98 * 1.01, 0.2 * 0.98 * 1.01 * 0.98]
    np.testing.assert_allclose([b for b, _ in seen], want[:3], rtol=1e-5)
    np.testing.assert_allclose([b for _, b in seen], want[1:], rtol=1e-5)
    assert all(type(x) is float for x in carry.values())  # as JSON keeps them


def test_policies_of_a_run_are_compared_at_one_price():
    assert advantages.no_penalty().of(3.0) == 0
    assert advantages.fixed(beta=0.5).of(3.0) == 1.5 and advantages.fixed(beta=0.5).of(-1.0) == -0.5
    penalty = advantages.adaptive(beta=0.5, target=2.0)
    assert [penalty.of(kl) for kl in (-1.0, 2.0, 3.0)] == [0, 0, 0.5]


def test_the_moving_average_is_of_earlier_rollouts():
    own = plan(baseline="moving_average(decay=0.75)", samples=1)
    carry, means = own.start, []
    for shift in (0.0, 4.0, 8.0):
        arrays, carry, _ = own(KNOWN | {"reward": REWARD + shift}, MASK, carry)
        means.append(float(np.mean(REWARD + shift - arrays["advantage"])))
    np.testing.assert_allclose(means, [3.5, 3.5, 0.75 * 3.5 + 0.25 * 7.5])
    assert carry["average"] == pytest.approx(0.75 * means[2] + 0.25 * 11.5)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"baseline": "leave_one_out()", "samples": 1}, "at least 2 completions of a prompt, got 1; set samples to 2"),
        ({"baseline": "moving_average(decay=1.0)"}, "decay must be in [0, 1), got 1.0"),
        ({"kl": "fixed(beta=-1.0)"}, "beta must not be negative"),
        ({"kl": "adaptive(target=0.0)"}, "beta, target and horizon must be positive"),
        ({"kl": "adaptive(horizon=2)"}, "episodes must be in"),
        ({"weights": "exp_weights(beta=0.0)"}, "beta and cap must be positive"),
        ({"weights": "keep_above(quantile=2.0)"}, "quantile must be in [0, 1)"),
        ({"weights": "exp_weights()"}, "exp_weights() needs beta"),
        ({"baseline": "leave_two_out()"}, "there is no 'leave_two_out'; did you mean 'leave_one_out'?"),
        ({"returns": "td()"}, "config key 'returns': there is no 'td'"),
    ],
)  # fmt: skip
def test_lines_that_do_not_fit_are_refused(lines, message):
    with pytest.raises(UserError) as error:
        plan(**lines)
    assert message in str(error.value) and "config key" in str(error.value)
