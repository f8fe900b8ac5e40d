"""The `loss` line: what is refused before anything loads, and with which words."""

import re

import pytest

from rmjax import lookup
from rmjax.assembly import objective
from rmjax.errors import UserError
from rmjax.losses import LOSSES

TEXTS = {"score", "rating", "text_weight", "tokens"}
PAIRS = {"score", "chosen", "rejected", "pair_weight"}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_named_alone_and_with_each_of_its_options(name):
    spec = "dr_grpo(max_length=8)" if name == "dr_grpo" else f"{name}()"
    [term] = objective.terms(spec, ())
    assert (term.coef, term.name) == (1.0, name)
    optional = [n for n, required in lookup.arrays(LOSSES[name]).items() if not required]
    for array in optional:
        assert objective.terms(f"{name}()", (array,))
        assert array not in objective.needs([term])


@pytest.mark.parametrize(
    ("loss", "pair_arrays", "message"),
    [
        ("brad_terry()", (), "there is no 'brad_terry'; did you mean 'bradley_terry'?"),
        ("hinge(margins=1.0)", (), "hinge() has no option 'margins'"),
        ("hinge(margin=-1.0)", (), "hinge: margin must be positive, got -1.0"),
        ("bradley_terry(label_smoothing=0.5)", (), "label_smoothing must be in [0, 0.5)"),
        ("huber(delta=0.0)", (), "huber: delta must be positive"),
        ("mse() + 0.1 * robust(flip_rate=0.7)", (), "robust: flip_rate must be in"),
        ("bradley_terry()", ("margins", "target"), "bradley_terry: target and margins both say"),
        ("mse()", ("margins",), "'pair_arrays': margins is read by no term of loss='mse()'"),
        ("hinge()", ("tie", "target"), "tie is read by no term"),
        ("mse() + mse()", (), "['mse'] more than once"),
    ],
)
def test_mistakes_are_named_before_anything_loads(loss, pair_arrays, message):
    with pytest.raises(UserError, match=re.escape(message)):
        objective.terms(loss, pair_arrays)


@pytest.mark.parametrize(
    ("loss", "offered", "message"),
    [
        ("cross_entropy()", TEXTS | {"label"}, "needs logits, which the head classes() offers"),
        ("ordinal()", TEXTS | {"label"}, "needs thresholds, which the head ordinal() offers"),
        ("gaussian_nll()", TEXTS, "needs log_variance, which the head gaussian() offers"),
        ("rao_kupper()", {"chosen", "rejected"}, "needs tie_width, which the head scalar() offers"),
        ("bradley_terry()", TEXTS, "needs chosen, rejected, which pairs offer; set group_size"),
        ("mse() + hinge()", TEXTS, "needs chosen, rejected, which pairs offer"),
        ("votes()", TEXTS | {"logits"}, "needs shares, which rated texts with a known scale"),
        ("binary_cross_entropy()", TEXTS, "needs probability, which rated texts with a known"),
        ("process()", TEXTS, "needs probability, which rated texts with a known"),
        ("plackett_luce()", TEXTS, "needs group_mask, group_ratings, group_scores, which rankings"),
        ("attributes_mse()", TEXTS, "which the head attributes() offers"),
        ("attributes_mse()", TEXTS | {"attribute_scores"}, "which rated texts with ratings by"),
        ("dpo()", TEXTS, "which policies offer; experiments.optimize_policy has their losses"),
        ("mse()", PAIRS, "needs rating, which rated texts offer; pairs without ratings do not"),
    ],
)
def test_a_loss_that_does_not_fit_model_or_data_is_told_what_would(loss, offered, message):
    with pytest.raises(UserError, match=f"config key 'loss': .*{re.escape(message)}"):
        objective.create(objective.terms(loss, ()), lambda *_: {}, offered)


def test_pairs_bring_their_metrics():
    nothing = lambda *_: {}
    goal = lambda loss, offered: objective.create(objective.terms(loss, ()), nothing, offered)
    assert goal("mse() + 0.5 * hinge()", TEXTS | PAIRS).coefs == {"mse": 1.0, "hinge": 0.5}
    assert goal("mse()", TEXTS).coefs == {"mse": 1.0}
    assert objective.PAIR_METRICS.keys() == {"accuracy", "gap"}
