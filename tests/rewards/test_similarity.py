"""Similarities against their definitions and the packages' other ways of being called."""

import importlib.metadata
import re

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from rmjax.rewards import similarity

ANGLES = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5}


def by_cosine(texts):
    """Vectors whose cosine with that of any capital letter is ANGLES'."""
    of = lambda w: [ANGLES[w], (1 - ANGLES[w] ** 2) ** 0.5] if w in ANGLES else [2.0, 0.0]
    return [np.array([of(w) for w in words]) for words in texts]


def test_the_worked_figure_of_five_words():
    # The source document prints 0.68, a slip: the mean of 0.9, 0.8, 0.7, 0.6, 0.5 is 0.70.
    got = similarity.word_aligned(["a b c d e"], ["V W X Y Z"], by_cosine)
    np.testing.assert_allclose(got, [0.70], rtol=1e-6)


def test_words_past_the_reference_count_nothing_and_a_longer_reference_is_no_matter():
    texts, references = ["a b c", "a", "a", "", "...", "ab"], ["X", "X Y Z", "", "X", "X", "X"]
    vectors = lambda texts: by_cosine([["a" if w == "ab" else w for w in words] for words in texts])
    got = similarity.word_aligned(texts, references, vectors)
    np.testing.assert_allclose(got, [0.3, 0.9, 0, 0, 0, 0.9], rtol=1e-6)


def test_characters_are_words_without_spaces():
    seen = []

    def vectors(texts):
        seen.extend(list(words) for words in texts)
        return [np.ones((len(words), 2)) for words in texts]

    np.testing.assert_allclose(
        similarity.word_aligned(["我爱你们"], ["我爱"], vectors), [0.5], rtol=1e-6
    )
    assert seen == [list("我爱你们"), list("我爱")]


def test_embedding_cosine():
    table = {"x": [3, 4], "y": [4, -3], "z": [-6, -8], "0": [0, 0], "": [3, 4]}
    embed = lambda texts: np.array([table[t] for t in texts])
    got = similarity.embedding_cosine(["x", "y", "z", "0", ""], ["x"] * 5, embed)
    np.testing.assert_allclose(got, [1, 0, -1, 0, 0], atol=1e-7)


@pytest.mark.parametrize(
    ("text", "reference", "tokenizer"),
    [
        ("The cat sat on the mat.", "The cat is on the mat.", "13a"),
        ("我不喜欢这部电影。", "我喜欢这部新电影。", "zh"),
        ("A 中 word here and there", "One 中 word here and not", "zh"),
        ("私は猫が好き", "私は犬が好きです", "char"),
        ("ฉันรักแมว", "ฉันรักหมา", "char"),
    ],
)
def test_bleu_and_chrf_agree_with_sacrebleu(text, reference, tokenizer):
    want = sacrebleu.sentence_bleu(text, [reference], tokenize=tokenizer, use_effective_order=True)
    np.testing.assert_allclose(similarity.bleu([text], [reference]), want.score / 100, rtol=1e-6)
    assert 0.05 < want.score / 100 < 0.95
    for order in (0, 2):
        want = sacrebleu.sentence_chrf(text, [reference], word_order=order)
        got = similarity.chrf([text], [reference], word_order=order)
        np.testing.assert_allclose(got, want.score / 100, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_agrees_with_its_package_in_english_and_reads_other_scripts(kind):
    text, reference = "The cat sat quietly on the mat", "the cat, on that mat: it sat."
    want = RougeScorer([kind]).score(reference, text)[kind].fmeasure
    texts, references = [text, reference, "", "我爱你"], [reference] * 3 + ["我爱你"]
    got = similarity.rouge(texts, references, kind=kind)
    np.testing.assert_allclose(got, [want, 1, 0, 1], rtol=1e-6)


def test_short_texts_are_not_punished_for_orders_that_they_cannot_have():
    np.testing.assert_allclose(similarity.bleu(["a b", "a"], ["a b", "b"]), [1, 0], rtol=1e-6)


def test_rouge_by_hand():
    # one of two words each: precision 1/2, recall 1/2
    np.testing.assert_allclose(similarity.rouge(["a b"], ["a c"], kind="rouge1"), [0.5])
    np.testing.assert_allclose(similarity.rouge(["c a b"], ["a b c"]), [2 / 3], rtol=1e-6)


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="kind"):
        similarity.rouge(["a"], ["a"], kind="rouge9")
    with pytest.raises(ValueError, match="word_order"):
        similarity.chrf(["a"], ["a"], word_order=-1)


def test_neither_package_needs_a_framework():
    found, todo = set(), ["sacrebleu", "rouge-score"]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            needs = importlib.metadata.requires(name) or []
            here = [n for n in needs if "extra ==" not in n and "Windows" not in n]
            todo += [re.split(r"[^\w.-]", n)[0].lower() for n in here]
    assert "numpy" in found and not {"torch", "tensorflow", "transformers"} & found
