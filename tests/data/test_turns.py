"""What stands between two answers, with and without a template, is what a prompt of the whole would have there."""

import numpy as np
import pytest

from rmjax.data import chat, language, turns
from rmjax.data.encode import Reader
from rmjax.data.language import Reads
from rmjax.data.tokenizer import Layout, Tokenizer
from rmjax.errors import UserError

BYTES = Tokenizer.bytes()
ESCAPED = Layout(escaped=True)
TURNS = (  # with a message of its own at the beginning, and a line behind each turn
    "<s>rules\n{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
SAID = ["", "found 3", "</s> is text", "é\n"]


def reads(source=None):
    template = source and chat.Template(source, special_tokens=BYTES.special_tokens)
    return Reads(Reader(BYTES, template, 64, True, ESCAPED), (2,))


def ids(text):
    return BYTES.encode([text], 999, ESCAPED)[0][1:-1].tolist()


def test_plain_observations_end_as_a_prompt_does():
    found = turns.following(SAID, reads())
    assert [f.tolist() for f in found] == [ids(t) for t in SAID]
    assert found[2].tolist().count(2) == 0  # the one that was spelled is text


def test_bpe_has_nothing_between():
    bpe = Tokenizer.bpe(["found 3, open the box"], 270)
    found = turns.following(["found 3"], Reads(Reader(bpe, None, 64, True), (2,)))
    assert bpe.decode(found[0]) == "found 3" and not {0, 1, 2} & {*found[0].tolist()}


def test_a_template_gives_the_turns_of_the_whole_conversation():
    own = reads(TURNS)
    found = turns.following(SAID, own)
    start = language.prompts(["open c"], own, 999).ids
    for observation, tail in zip(SAID, found, strict=True):
        whole = (("user", "open c"), ("assistant", "c"), ("user", observation))
        (want,) = language.prompts([whole], own, 999).ids
        np.testing.assert_array_equal(np.concatenate([start[0], [*ids("c"), 2], tail]), want)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}<s>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<s>{% endif %}",
        "{{ messages | length }}{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}",
    ],
    ids=["answers end in nothing", "the beginning changes"],
)
def test_templates_that_do_not_go_on_are_refused(source):
    with pytest.raises(UserError, match="the chat template renders"):
        turns.following(["x"], reads(source))
