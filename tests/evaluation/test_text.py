"""Figures of sets of texts, by hand and against sacrebleu."""

import math

import numpy as np
import pytest
import sacrebleu

from rmjax.evaluation import text

TEXTS = [["a", "b", "a", "b"], ["a", "b", "c"], []]


def test_distinct_ngrams_of_all_texts():
    assert text.distinct(TEXTS, 1) == pytest.approx(3 / 7)
    assert text.distinct(TEXTS, 2) == pytest.approx(3 / 5)  # ab ba bc of ab ba ab ab bc
    assert math.isnan(text.distinct(TEXTS, 5))
    assert text.distinct([[1, 2], [1, 2]], 2) == 0.5  # tokens do as well


def test_values_of_each_text():
    np.testing.assert_array_equal(text.lengths(TEXTS), [4, 3, 0])
    np.testing.assert_allclose(text.repetition(TEXTS, 1), [1 / 2, 0, 0])
    np.testing.assert_allclose(text.repetition(TEXTS, 2), [1 / 3, 0, 0])
    for call in (text.repetition, text.distinct):
        with pytest.raises(ValueError, match="n must be at least 1"):
            call(TEXTS, 0)


def test_figures_are_means_over_the_texts():
    found = text.figures(TEXTS, np.array([True, False, False]))
    assert found == pytest.approx(
        {"length": 7 / 3, "repetition": 0, "missing_stop": 2 / 3, "distinct_1": 3 / 7, "distinct_2": 3 / 5}
    )  # fmt: skip


def test_self_bleu_is_each_against_the_others():
    cat, other = "the cat sat on the mat", "the cat is on the mat"
    texts = [cat, other, "dogs bark all night", cat]
    got = text.self_bleu([t.split() for t in texts])
    want = [
        sacrebleu.sentence_bleu(
            t, texts[:i] + texts[i + 1 :], tokenize="none", use_effective_order=True
        ).score
        for i, t in enumerate(texts)
    ]
    np.testing.assert_allclose(got, np.array(want) / 100)
    assert got[0] == got[3] == 1 and got[1] < 1 and got[2] == 0
    np.testing.assert_array_equal(text.self_bleu([[], ["a"]]), [0, 0])
    with pytest.raises(ValueError, match="two texts"):
        text.self_bleu([["a"]])


def test_a_uniform_model_has_the_cross_entropy_of_its_alphabet():
    nats = 10 * math.log(256)  # ten tokens of one byte each, all 256 alike
    assert text.nats_per_token(nats, 10) == pytest.approx(math.log(256))
    assert text.perplexity(nats, 10) == pytest.approx(256)
    assert text.bits_per_byte(nats, 10) == pytest.approx(8)
    assert text.bits_per_byte(nats, 20) == pytest.approx(4)
    assert text.perplexity(1e6, 1) == math.inf
    for call in (text.nats_per_token, text.perplexity, text.bits_per_byte):
        with pytest.raises(ValueError, match="to divide by"):
            call(1.0, 0)
