"""The DPO family against TRL's own trainers, value and gradient (tests/golden/make_preferences.py).

Where TRL and specs differ, what both have is compared:
* label smoothing: TRL's "sigmoid" takes none; its "aot_unpaired" of a single pair is the smoothed loss.
* IPO: TRL too averages over tokens, as its authors told both.
* CPO: TRL adds the likelihood as a mean over the batch's chosen tokens, and ours as a sum over each completion, as the
  paper has it. So the preference is compared (alpha=0), and the likelihood as TRL's "sft" with `mle`.
* ORPO: the odds ratio alone; TRL's likelihood is over prompt and completion, ours over the completion.
* SLiC: TRL has it as CPO's "hinge", whose beta is 1 / delta.
* KTO: TRL's reference point is the batch's mean over mismatched texts, not below 0, as `kto_point`.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.losses import likelihood, pairwise, preference
from rmjax.rl import kl_penalty

STORED = json.loads((Path(__file__).parents[1] / "golden/preferences.json").read_text("utf-8"))
BETA = STORED["beta"]
POLICY, REFERENCE, LENGTHS = (
    jnp.asarray(STORED[name], jnp.float32) for name in ("policy", "reference", "lengths")
)


def robust(chosen, rejected, *reference):
    """`pairwise.robust` of implicit rewards."""
    scores = [BETA * (now - before) for now, before in zip((chosen, rejected), reference, strict=True)]  # fmt: skip
    return pairwise.robust(*scores, flip_rate=0.2)


CASES = {
    "sigmoid": lambda c, r: preference.dpo(c, r, *REFERENCE, beta=BETA),
    "smoothed": lambda c, r: preference.dpo(c, r, *REFERENCE, beta=BETA, label_smoothing=0.2),
    "robust": lambda c, r: robust(c, r, *REFERENCE),
    "ipo": lambda c, r: preference.ipo(c, r, *REFERENCE, *LENGTHS, beta=BETA),
    "hinge": lambda c, r: preference.hinge_norm(c, r, *REFERENCE, beta=BETA),
    "cpo": lambda c, r: preference.cpo(c, r, beta=BETA, alpha=0.0),
    "cpo_hinge": lambda c, r: preference.slic(c, r, delta=1.0),
    "simpo": lambda c, r: preference.simpo(c, r, *LENGTHS, beta=2.5, gamma=1.375),
    "orpo": lambda c, r: preference.orpo(c, r, *LENGTHS),
    "sft": lambda c, r: likelihood.mle(c, jnp.ones_like(c)) / LENGTHS[0] + 0 * r,
}


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_every_stored_loss_is_compared():
    assert {*CASES, "kto"} == {*STORED["losses"]}


@pytest.mark.parametrize("name", CASES)
def test_pairs_have_the_reference_value_and_gradient(name):
    want = STORED["losses"][name]
    value, pull = jax.vjp(CASES[name], *POLICY)
    close(value, want["value"])
    chosen, rejected = pull(jnp.ones_like(value))
    close(chosen, want["chosen_gradient"])
    close(rejected, want["rejected_gradient"])


def test_kto_has_the_reference_point_value_and_gradient():
    want = STORED["losses"]["kto"]
    now, before = (
        jnp.asarray(STORED[name], jnp.float32) for name in ("mismatched", "mismatched_reference")
    )
    point = kl_penalty.kto_point(now - before)
    close(point, want["point"])
    assert point > 0
    policy, reference = POLICY.ravel(), REFERENCE.ravel()
    desirable = jnp.repeat(jnp.asarray([1.0, 0.0]), POLICY.shape[1])

    def loss(policy):
        points = jnp.full_like(policy, point)
        return preference.kto(
            policy, reference, desirable, points, beta=BETA, desirable_weight=1.2, undesirable_weight=0.8
        )  # fmt: skip

    value, pull = jax.vjp(loss, policy)
    close(value, want["value"])
    close(pull(jnp.ones_like(value))[0], want["gradient"])
