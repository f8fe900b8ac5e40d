"""Reward lines as functions of texts: terms add up, models are asked, what is missing is said."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from rmjax.data.records import RatedText
from rmjax.errors import UserError
from rmjax.inference import scoring
from rmjax.rl import reward_functions
from rmjax.rl.packing import Texts

TEXTS = Texts(
    ["the film ", "a story "], ["was superb", "of a dull plot"], ["was good", "of a plot"],
    np.array([True, False]),
)  # fmt: skip


def lines(**changed):
    keys = {"reward": "none()", "reward_model": "", "gold": "none()", "gold_model": ""}
    keys |= {"reward_output": "", "gold_output": ""}
    return ConfigDict({**keys, **changed})


def test_terms_add_up_and_nothing_is_nothing():
    made = reward_functions.make(
        lines(reward="regex(pattern='dull') - 0.5 * missing_stop()"), "reward", {}, whole=True
    )
    assert made is not None
    np.testing.assert_allclose(made(TEXTS), [0.0, 1.5])
    assert reward_functions.make(lines(), "gold", {}, whole=True) is None


def test_a_reward_model_is_asked_of_the_whole_text(rated):
    config = lines(gold="2.0 * learned()", gold_model=str(rated[0]))
    made = reward_functions.make(config, "gold", {}, whole=True)
    assert made is not None
    whole = [p + c for p, c in zip(TEXTS.prompts, TEXTS.completions, strict=True)]
    want = scoring.load(rated[0]).records([RatedText("", "", "", t, 0.0) for t in whole])[0]
    np.testing.assert_allclose(made(TEXTS), 2 * want, rtol=1e-5)
    assert want[0] != want[1]


def test_what_cannot_be_asked_is_said(rated):
    with pytest.raises(UserError, match="'reward': learned needs a reward model"):
        reward_functions.make(lines(reward="learned()"), "reward", {}, whole=True)
    config = lines(reward="class_probability(label=0)", reward_model=str(rated[0]))
    made = reward_functions.make(config, "reward", {}, whole=True)
    assert made is not None
    with pytest.raises(UserError, match="is no classifier"):
        made(TEXTS)
    with pytest.raises(UserError, match="'reward': needs log_ratio, which a run cannot give"):
        reward_functions.make(lines(reward="implicit()"), "reward", {}, whole=True)
