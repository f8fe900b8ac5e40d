"""Rules on texts whose reward is plain to see."""

import numpy as np
import pytest

from rmjax.rewards import rules
from rmjax.rewards.words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop: it's 3.14, or 1,000!", ["Don't", "stop", "it's", "3.14", "or", "1,000"]),
        ("我爱Python 3。", ["我", "爱", "Python", "3"]),
        ("カー", ["カ", "ー"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("e\u0301te\u0301 5th x_1", ["e\u0301te\u0301", "5th", "x_1"]),
        ("👍🏽 👨‍👩‍👧 a+b", ["👍🏽", "👨‍👩‍👧", "a", "+", "b"]),
        ("... —\n", []),
    ],
)
def test_words_of_every_script(text, words):
    assert words_of(text) == words


def test_length_falls_from_the_target_beyond_the_tolerance():
    four = " ".join("abcd")
    got = rules.length(["a b", four, four + " e", four * 9, ""], target=4)
    np.testing.assert_allclose(got, [0.5, 1, 0.75, 0, 0])
    np.testing.assert_allclose(rules.length(["a b", ""], target=4, tolerance=1), [0.75, 0.25])
    np.testing.assert_allclose(rules.length(["a b", "我爱"], target=2), [1, 1])
    np.testing.assert_allclose(rules.length(["abcd"], target=5, unit="characters"), [0.8])
    np.testing.assert_array_equal(rules.characters(["", "héy", "👍"]), [0, 3, 1])


def test_regex_anywhere_or_whole():
    texts = ["see 12", "12", "no", "12\n"]
    np.testing.assert_array_equal(rules.regex(texts, pattern=r"\d+"), [1, 1, 0, 1])
    np.testing.assert_array_equal(rules.regex(texts, pattern=r"\d+", whole=True), [0, 1, 0, 0])


def test_format_wants_every_section_once_in_order_and_nothing_else():
    good = "<think>a\n</think> \n<answer></answer>\n"
    bad = [
        "",
        "x" + good,
        good + "x",
        good + good,
        "<answer>b</answer><think>a</think>",
        "<think>a</think>",
        "<think>a<answer>b</think></answer>",
        "<think><think>a</think><answer>b</answer>",
        "<think>a</think> so <answer>b</answer>",
    ]
    np.testing.assert_array_equal(rules.format([good, *bad]), [1] + [0] * len(bad))
    np.testing.assert_array_equal(rules.format(["<a.c>1</a.c>", "<abc>1</abc>"], sections=["a.c"]), [1, 0])  # fmt: skip


def test_repetition_counts_ngrams_that_came_before():
    np.testing.assert_allclose(
        rules.repetition(["a b c A. b C", "a a a a a", "a b", "a b c d"]), [-1 / 4, -2 / 3, 0, 0]
    )
    np.testing.assert_allclose(rules.repetition(["a a b"], n=1), [-1 / 3])


def test_keywords_are_whole_words_in_any_case():
    texts = ["The CAT, sat down", "concatenate", "cat sit down", "我爱猫", ""]
    options = {"words": ["cat", "sat down", "爱猫"]}
    np.testing.assert_allclose(rules.keywords(texts, **options), [2 / 3, 0, 1 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(rules.keywords(texts, mode="any", **options), [1, 0, 1, 1, 0])
    np.testing.assert_array_equal(rules.keywords(texts, mode="none", **options), [0, 1, 0, 0, 1])


def test_json_is_strict_and_may_owe_keys():
    deep, long = "[" * 100_000, "9" * 10_000
    good = ['{"a": 1}', "[]", "3", ' "x" ', "null", long]
    bad = ["", "{'a': 1}", '{"a": 1} x', "NaN", "[Infinity]", "[1,]", deep]
    np.testing.assert_array_equal(rules.json_validity(good + bad), [1] * len(good) + [0] * len(bad))
    texts = ['{"a": 1, "b": null}', '{"a": 1}', '["a", "b"]', '"ab"']
    np.testing.assert_array_equal(rules.json_validity(texts, required=["a", "b"]), [1, 0, 0, 0])


def test_missing_stop_costs_the_penalty():
    np.testing.assert_array_equal(rules.missing_stop(np.array([True, False])), [0, -1])
    np.testing.assert_allclose(rules.missing_stop(np.array([False]), penalty=-0.3), [-0.3])


def test_vader_agrees_with_what_it_says_of_plain_words():
    good, bad, none = rules.vader(["I love it", "I hate it", "a table"])
    assert good > 0.5 and bad < -0.5 and none == 0


@pytest.mark.parametrize(
    ("reward", "options"),
    [
        ("length", {"target": 0}),
        ("length", {"target": 1, "tolerance": -1}),
        ("length", {"target": 1, "unit": "tokens"}),
        ("regex", {"pattern": "("}),
        ("format", {"sections": []}),
        ("format", {"sections": "think"}),
        ("format", {"sections": ["a", "a"]}),
        ("repetition", {"n": 0}),
        ("keywords", {"words": []}),
        ("keywords", {"words": "cat"}),
        ("keywords", {"words": ["..."]}),
        ("keywords", {"words": ["a"], "mode": "all"}),
        ("json_validity", {"required": "key"}),
    ],
)
def test_options_outside_their_range_are_refused(reward, options):
    with pytest.raises(ValueError, match=next(reversed(options))):
        getattr(rules, reward)(["a"], **options)
