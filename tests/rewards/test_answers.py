"""Answers that are and are not the reference's."""

import time

import numpy as np
import pytest

from rmjax.rewards import answers


def test_exact_answers_differ_by_case_and_space_where_that_is_asked():
    texts, wanted = [" New  York\n", "new york", "York", ""], ["New York"] * 4
    np.testing.assert_array_equal(answers.exact_answer(texts, wanted), [1, 1, 0, 0])
    got = answers.exact_answer(texts, wanted, ignore_case=False)
    np.testing.assert_array_equal(got, [1, 0, 0, 0])
    got = answers.exact_answer(texts, wanted, ignore_space=False)
    np.testing.assert_array_equal(got, [0, 1, 0, 0])


def test_the_last_match_of_a_pattern_is_the_answer():
    texts = ["#### 5\n#### 42", "42", "#### 42\n#### 5", "####  42 "]
    for reference in ("42", "6 * 7 is\n#### 42"):
        got = answers.exact_answer(texts, [reference] * 4, pattern=r"#### (.*)")
        np.testing.assert_array_equal(got, [1, 0, 0, 1])
    got = answers.exact_answer(["a1 b2"], ["b2"], pattern=r"[a-z]\d")  # no group: the whole match
    np.testing.assert_array_equal(got, [1])
    # a group that takes no part leaves no answer
    np.testing.assert_array_equal(answers.exact_answer(["x"], ["x"], pattern="x|(y)"), [0])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3, then 42.", "42"),
        ("1,234,567.50", "1234567.5"),
        ("-7", "-7"),
        ("x = −7", "-7"),
        ("costs -$1,000", "-1000"),
        ("$5.", "5"),
        ("10-5", "5"),
        ("f(2)-3", "3"),
        ("答案是-5", "-5"),
        ("3/4", "0.75"),
        ("-3 / 4", "-0.75"),
        (r"so -\frac{3}{4}", "-0.75"),
        (r"\dfrac{1,000}{8}", "125"),
        (".5", "0.5"),
        ("1e-3", "0.001"),
        ("50%", "50"),
        ("42km of H2O", "42"),
        ("1.2.3", "1.2"),
        ("1,2,3", "3"),
        ("1,2345", "2345"),
        ("the answer is...8", "8"),
    ],
)
def test_the_last_number_of_a_text(text, number):
    # exactly: a neighbor at 1e-9 is another number
    near = str(float(number) + 1e-9)
    np.testing.assert_array_equal(
        answers.numeric_answer([text, text], [number, near]), [1, 0], err_msg=text
    )


def test_numbers_within_the_tolerance_are_right_and_it_is_exact():
    texts = ["1.01", "1.011", "0.99", "one", "", "1/0", "9" * 5000]
    got = answers.numeric_answer(texts, ["1.0"] * 7, tolerance=0.01)
    np.testing.assert_array_equal(got, [1, 0, 1, 0, 0, 0, 0])


def test_numbers_may_be_sought_in_a_pattern():
    texts = ["<a>4</a> or 5", "4", "<a>four</a> 4"]
    got = answers.numeric_answer(texts, ["4", "4", "<a>4</a> 9"], pattern="<a>(.*?)</a>")
    np.testing.assert_array_equal(got, [1, 0, 0])


def test_references_without_a_number_and_bad_options_are_refused():
    with pytest.raises(ValueError, match="1 of 2 references have no number"):
        answers.numeric_answer(["1", "2"], ["1", "two"])
    with pytest.raises(ValueError, match="tolerance"):
        answers.numeric_answer(["1"], ["1"], tolerance=-1.0)
    for reward in (answers.numeric_answer, answers.exact_answer):
        with pytest.raises(ValueError, match="no regular expression"):
            reward(["1"], ["1"], pattern="(")


@pytest.mark.parametrize(
    "unit", ["1,234", "9", " ", "-", "1/ ", "1.", "$", "1 ", ".1", "\\frac{1}"]
)
def test_long_texts_take_linear_time(unit):
    start = time.perf_counter()
    answers.numeric_answer([unit * 20_000], ["1"])
    assert time.perf_counter() - start < 2
