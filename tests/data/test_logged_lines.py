"""Lines of logs: what an answer earned and how likely it was, and the tokens that the log-probability is of."""

import math

import numpy as np
import pytest

from rmjax.data import formats, language
from rmjax.data.encode import Reader
from rmjax.data.fields import Bad
from rmjax.data.records import RatedText, Text
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError

STOP = 2
READS = language.Reads(Reader(Tokenizer.bytes(), None, 99, share=True), (STOP,))


def read(row, **reading):
    return formats.draft(row, 7, formats.Reading("d", **reading)).record


def test_a_log_says_reward_and_log_prob():
    row = {"prompt": "Q?", "completion": "yes", "reward": 0.5, "log_prob": -3.25, "tokens": 4}
    want = Text("7", "d", "q", "yes", "Q?", reward=0.5, log_prob=-3.25)
    assert read(row) == want
    assert read({"text": "yes", "reward": 2}) == Text("7", "d", "yes", "yes", reward=2.0)
    nats = [-0.1, -0.2, -0.3, -0.7]
    made = read({"prompt": "Q?", "completion": "yes", "log_probs": nats, "stopped": False})
    assert made == Text(
        "7", "d", "q", "yes", "Q?", log_prob=math.fsum(nats), log_probs=tuple(nats), stopped=False
    )
    assert made.reward is None
    empty = read({"prompt": "Q?", "completion": "", "log_prob": -1.0})
    assert empty.text == ""  # the policy said nothing but that it stops


def test_a_reward_can_be_a_rating_instead():
    row = {"text": "yes", "reward": 0.5, "log_prob": -3.25}
    made = read(row, rating="reward")
    assert isinstance(made, RatedText) and made.rating == 0.5
    rated = read({"text": "yes", "rating": 4, "reward": 0.5})
    assert isinstance(rated, RatedText) and rated.rating == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"log_prob": 0.5}, 'field "log_prob": must be nats, 0 or below, not 0.5'),
        ({"log_prob": float("nan")}, 'field "log_prob": must be nats, 0 or below, not nan'),
        ({"log_probs": [-1.0, 0.5]}, 'field "log_probs": must be the nats of each token'),
        ({"log_probs": []}, 'field "log_probs": must be the nats of each token'),
        ({"log_probs": [-1.0], "log_prob": -1.0}, '"log_prob" and "log_probs"'),
        ({"reward": "good"}, 'field "reward": must be a finite number'),
        ({"reward": 1.0, "stopped": 1}, 'field "stopped": must be true or false'),
        ({"log_prob": -1.0, "rating": 3}, "whose \"reward\" stands for 'rating'"),
        ({"reward": 1.0, "completion": "", "prompt": ""}, 'field "completion": is empty'),
        ({"reward": 1.0, "completion": "", "stopped": False}, 'field "completion": is empty'),
    ],
)  # fmt: skip
def test_bad_lines_are_named(more, message):
    with pytest.raises(Bad) as error:
        read({"prompt": "Q?", "completion": "yes", **more})
    assert message in str(error.value)


def logged(text, prompt="Q?", **more):
    return Text("i", "d", "o", text, prompt, **more)


def test_an_answer_cut_by_length_has_no_stop_to_predict():
    records = [logged("yes", log_prob=-1.0), logged("yes", log_prob=-2.0, stopped=False)]
    found = language.encode(records, READS, 99).examples
    ends = [list(t[s:]) for t, s in zip(found.tokens, found.starts, strict=True)]
    assert ends[0] == [*ends[1], STOP] and len(ends[1]) == 3
    np.testing.assert_array_equal(found.per_text["old_sequence_log_probs"], [-1.0, -2.0])


def test_log_probs_are_those_of_what_is_read_or_nothing():
    assert (
        "old_sequence_log_probs" not in language.encode([logged("a")], READS, 99).examples.per_text
    )
    records = [
        logged("a" * 30, log_prob=-1.0),
        logged("b", log_prob=-2.0),
        logged("c" * 30, "", log_prob=-3.0),
    ]
    found = language.encode(records, READS, 12).examples
    np.testing.assert_array_equal(found.per_text["record"], [0, 1, 2, 2, 2])
    got = found.per_text["old_sequence_log_probs"]
    np.testing.assert_array_equal(np.isnan(got), [True, False, True, True, True])
    assert got[1] == -2.0
    right = logged("yes", log_prob=-4.0, log_probs=(-1.0,) * 4)
    assert len(language.encode([right], READS, 99).examples.tokens) == 1
    with pytest.raises(UserError, match="'i' has 3 log_probs, and its answer 4 tokens here"):
        language.encode([logged("yes", log_prob=-3.0, log_probs=(-1.0,) * 3)], READS, 99)
