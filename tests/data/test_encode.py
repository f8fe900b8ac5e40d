"""Records of every kind as token ids: whose texts they are, where they are scored, and what stands beside them."""

import numpy as np
import pytest

from rmjax.data.chat import Template
from rmjax.data.encode import Known, Reader, encode, told
from rmjax.data.records import Pair, Process, Ranking, RatedText
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError

BYTES = Tokenizer.bytes()
TEMPLATE = Template(
    "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PLAIN = {int(BYTES.encode([chr(c)], 9)[0][1]): chr(c) for c in range(32, 127)}
PLAIN[int(BYTES.encode(["\n"], 9)[0][1])] = "\n"


def reader(max_length=64, template=None, share=False):
    return Reader(BYTES, template, max_length, share)


def text(ids):
    """What token ids spell; | for each special token."""
    return "".join(PLAIN.get(int(i), "|") for i in ids)


def test_a_process_is_a_text_of_lines_scored_at_the_end_of_each():
    records = [
        Process("a", "d", "1", "1+1?", ("one", "so two"), (1.0, 0.5), weight=2.0),
        Process("b", "d", "2", "", ("no",), (0.0,)),
    ]
    made = encode(records, reader()).examples
    for tokens, ends, record in zip(made.tokens, made.ends, records, strict=True):
        assert len(ends) == len(record.steps) and text(tokens[ends[-1] + 1 :]) == "|"
        starts = np.concatenate([[0], ends[:-1] + 1])
        parts = [text(tokens[a : b + 1]) for a, b in zip(starts, ends, strict=True)]
        assert all(step in part for step, part in zip(record.steps, parts, strict=True))
    assert made.per_text["probability"].tolist() == [1.0, 0.5, 0.0]
    assert made.places(np.array([0])) == 2 and made.first_place.tolist() == [0, 2, 3]


def test_steps_that_do_not_fit_are_left_out_of_training_and_refused_when_judging():
    record = Process("a", "d", "1", "", ("x" * 6, "y" * 30, "z"), (1.0, 0.0, 1.0))
    made, counts = encode([record], reader(36), train=True)
    assert told(counts) == ["2 steps left out: they do not fit 36 tokens"]
    assert made.per_text["probability"].tolist() == [1.0] and "y" not in text(made.tokens[0])
    with pytest.raises(UserError, match="2 steps lie beyond max_length=36"):
        encode([record], reader(36))


def test_completions_share_one_truncated_prompt():
    record = Ranking("a", "d", "1", "p" * 30 + "Q", ("short", "a longer one"), (1.0, 2.0))
    made = encode([record], reader(32, share=True)).examples
    first, second = made.tokens
    assert len(second) == 32 and len(first) < 32
    shared = made.prefix(made.fixed[0])
    assert np.array_equal(first[:shared], second[:shared])
    assert text(first[:shared]).rstrip("|").endswith("Q") and shared > 10
    assert made.per_text["rating"].tolist() == [1.0, 2.0] and made.given is None


def test_conversations_are_rendered_by_the_template_or_as_lines():
    pair = Pair("a", "d", "1", (("user", "Hi"),), "Yes", "No")
    for template, want in (
        (TEMPLATE, ["[user]Hi;[assistant]Yes;", "[user]Hi;[assistant]No;"]),
        (None, ["user: Hi\n", "user: Hi\n"]),
    ):
        found = [
            text(t).strip("|") for t in encode([pair], reader(template=template)).examples.tokens
        ]
        assert [t.startswith(w) for t, w in zip(found, want, strict=True)] == [True, True]
    alone = RatedText("a", "d", "1", "Hi", 1.0)  # no prompt: no conversation
    assert text(encode([alone], reader(template=TEMPLATE)).examples.tokens[0]) == "|Hi|"


def test_texts_with_and_without_prompts_keep_their_places_and_kin():
    records = [
        RatedText("a", "d", "1", "one", 1.0, prompt="p"),
        RatedText("b", "d", "2", "two", 2.0),
        RatedText("c", "d", "1", "three", 3.0, prompt="p"),
    ]
    made = encode(records, reader(template=TEMPLATE, share=True)).examples
    assert [w in text(t) for w, t in zip(("one", "two", "three"), made.tokens, strict=True)] == [
        True
    ] * 3
    assert made.kin[0] == made.kin[2] != made.kin[1] and made.share


def test_attributes_are_arrays_with_what_is_known_marked():
    records = [
        RatedText("a", "d", "1", "x", 1.0, attributes=(("kind", 4.0), ("long", 1.0))),
        RatedText("b", "d", "2", "y", 2.0, attributes=(("long", 3.0),)),
    ]
    found = encode(records, reader(), Known(attributes=("kind", "long"))).examples.per_text
    assert found["attribute_ratings"].tolist() == [[4.0, 1.0], [0.0, 3.0]]
    assert found["attribute_mask"].tolist() == [[True, True], [False, True]]
