"""What becomes of a rollout's rewards: in the order of the line, with statistics that are carried on."""

import json

import ml_collections
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.errors import UserError
from rmjax.rl import advantages, reward_shaping

REWARDS = np.array([4, -6, 2, 1], np.float32)
LENGTHS, STOPPED = np.array([1, 2, 3, 4]), np.array([True, True, False, True])


def lines(shape, **more):
    c = ml_collections.ConfigDict(get_config("tiny_rloo"))
    c.update({"reward_shaping": shape, **more})
    return c


def shaped(line, carry=None, rewards=REWARDS):
    own = reward_shaping.plan(lines(line))
    return own(rewards, LENGTHS, STOPPED, own.start if carry is None else carry)


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("none()", REWARDS),
        ("clip(low=-5.0, high=3.0)", [3, -5, 2, 1]),
        ("stop_or_penalty()", [4, -6, -1, 1]),
        ("length_penalty(coef=0.5)", [3.5, -7, 0.5, -1]),
        ("stop_or_penalty(penalty=-9.0), clip(low=-5.0, high=3.0)", [3, -5, -5, 1]),
        ("clip(low=-5.0, high=3.0), stop_or_penalty(penalty=-9.0)", [3, -5, -9, 1]),
    ],
)
def test_steps_are_taken_in_their_order(line, want):
    found, carry = shaped(line)
    assert found.dtype == np.float32 and carry == {}
    np.testing.assert_allclose(found, want)


def test_rewards_are_normalized_by_those_of_earlier_rollouts_that_reach_the_step():
    line = "clip(low=-4.0, high=4.0), normalize()"
    first, carry = shaped(line)
    np.testing.assert_allclose(first, [4, -4, 2, 1])  # nothing was seen before
    carry = json.loads(json.dumps(carry))
    found, later = shaped(line, carry, REWARDS + 1)
    before = np.array([4, -4, 2, 1])
    want = (np.array([4, -4, 3, 2]) - before.mean()) / before.std()
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert later["running"]["count"] == 8
    assert later["running"]["mean"] == pytest.approx((before.sum() + 5) / 8)


def test_credit_is_of_shaped_rewards_and_keeps_their_statistics():
    own = advantages.plan(lines("stop_or_penalty(), normalize()", samples=2, kl="none()"))
    mask = np.ones((4, 3), np.float32)
    zeros = 0 * mask
    known = {"reward": REWARDS, "stopped": STOPPED, "old_log_probs": zeros, "reference_log_probs": zeros}  # fmt: skip
    arrays, carry, told = own(known, mask, own.start)
    np.testing.assert_allclose(arrays["reward"], [4, -6, -1, 1])
    np.testing.assert_allclose(arrays["advantage"], [10, -10, -2, 2])
    assert told["rollout/shaped_reward"] == pytest.approx(-0.5) and carry["seen"] == 4
    arrays, carry, _ = own(known, mask, json.loads(json.dumps(carry)))
    deviation = np.std([4, -6, -1, 1])
    np.testing.assert_allclose(arrays["advantage"], np.array([10, -10, -2, 2]) / deviation, rtol=1e-5)  # fmt: skip
    assert carry["running"]["count"] == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": "clip(low=1.0)"}, "'reward_shaping': clip() needs high"),
        ({"shape": "clip(low=1.0, high=0.0)"}, "low must be below high"),
        ({"shape": "clips(low=0.0, high=1.0)"}, "did you mean 'clip'?"),
        ({"shape": "normalize(), normalize()"}, "names something more than once"),
        ({"shape": "normalize(", "samples": 2}, "'reward_shaping': cannot read"),
        ({"shape": "normalize()", "samples": 0}, "shapes rewards of samples; set samples to 1 or more"),
    ],
)  # fmt: skip
def test_lines_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(UserError) as error:
        advantages.plan(lines(**changed))
    assert message in str(error.value) and "reward_shaping" in str(error.value)
