"""Tools, calls and reasoning in conversations; templates that mark generation or render a date; leads and joins."""

import datetime
import json

import numpy as np
import pytest

from rmjax.data import chat, conversations, encode, formats, language, tokenizer_config
from rmjax.data.encode import Reader
from rmjax.data.fields import Bad
from rmjax.data.language import Reads
from rmjax.data.records import Pair, RatedText
from rmjax.data.tokenizer import Layout, Tokenizer
from rmjax.errors import UserError
from tests.golden import parity

BYTES = Tokenizer.bytes()
CALLS = chat.Template(
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls[0].name }}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
BARE = chat.Template(
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CALLED = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]},
    {"role": "tool", "content": "sun", "name": "look"},
]
TOOLS = [{"name": "look", "é": 1}]


def reader(template, **more):
    return Reader(BYTES, template, 999, True, **more)


def test_templates_get_tools_and_all_that_messages_hold():
    prompt = conversations.prompt(CALLED, tools=TOOLS)
    text = chat.opening(prompt, CALLS)
    want = '[{"name": "look", "é": 1}][user]Weather?</s>[assistant]look</s>[tool]sun</s>[assistant]'
    assert text == want
    assert chat.opening(prompt, None) == "user: Weather?\nassistant: \ntool: sun\nassistant: "
    parts = conversations.prompt([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
    assert parts == (("user", "Hi"),)
    for wrong, message in (
        ([{"role": "user", "content": [{"type": "image"}]}], "holds parts that are no text"),
        ([{"role": "user", "content": None}], "must be a string or a list"),
    ):
        with pytest.raises(Bad, match=message):
            conversations.prompt(wrong)
    with pytest.raises(Bad, match='field "tools": must be a list of objects'):
        conversations.prompt(CALLED, tools=["look"])


def test_what_a_template_leaves_out_is_counted():
    row = {"prompt": CALLED, "tools": TOOLS, "chosen": "Sunny.", "rejected": "Rain."}
    record = formats.draft(row, 1, formats.Reading("d")).record
    assert isinstance(record, Pair)
    for template, lost in ((CALLS, 1), (BARE, 1), (None, 1)):
        _, counts = encode.encode([record], reader(template))
        told = [n for what, n in counts.items() if "not rendered" in what]
        assert told == ([] if template is CALLS else [lost])
    answer = {"role": "assistant", "content": "Sunny.", "reasoning_content": "It said sun."}
    draft = formats.draft({"messages": [CALLED[0], answer], "rating": 1}, 1, formats.Reading("d"))
    assert draft.record.text == "Sunny." and "the text alone is read" in draft.note
    sides = {"chosen": [CALLED[0], answer], "rejected": [CALLED[0], answer | {"content": "Rain."}]}
    assert "the text alone is read" in formats.draft(sides, 1, formats.Reading("d")).note


def test_generation_marks_are_what_they_hold():
    marked = chat.Template(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}:{% endif %}{% endfor %}"
    )
    assert chat.render((("user", "Hi"),), "Yes", marked) == ("Hi:", "Yes")


def test_a_template_renders_one_date_and_keeps_it():
    source = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}|{{ m.content }}{% endfor %}"
    today = chat.Template(source)
    assert today.date == datetime.date.today().isoformat()
    kept = today.dated("2024-07-26")
    assert kept.render((("user", "a"),), generation=False) == "26 Jul 2024|a"
    assert kept.dated("2026-01-01").date == "2024-07-26"  # it is fixed
    assert chat.Template(**kept.about()).hash == kept.hash != today.hash
    fixed = chat.Template(kept.pinned_source)  # as other libraries get it
    assert not fixed.date
    assert fixed.render((("user", "a"),), generation=False) == "26 Jul 2024|a"
    assert BARE.date == "" and BARE.dated("2024-07-26") is BARE and "date" not in BARE.about()


def test_an_answer_that_is_opened_otherwise_parts_where_the_texts_part():
    thinking = chat.Template(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
    )
    assert chat.render((("user", "Hi"),), "Yes", thinking) == ("<user>Hi<assistant>", "Yes")
    changing = chat.Template(
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(UserError, match="cannot be told apart"):
        chat.render((("user", "Hi"),), "Yes", changing)


def test_what_a_template_writes_before_an_answer_is_no_part_of_it():
    mistral = chat.Template(
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    own = Reads(reader(mistral), (2,))
    opened = language.prompts(["Hi", (("user", "a"),)], own, 99)
    assert opened.leads == [" ", " "]
    assert BYTES.decode(opened.ids[0]) == "[INST] Hi [/INST]"
    drawn = BYTES.encode([" yes"], 99)[0][1:]
    assert language.completion(drawn, opened.ids[0], opened.leads[0], own) == "yes"
    whole, _ = encode.groups(own.whole, ["Hi"], [["yes"]])
    np.testing.assert_array_equal(whole[0][0].whole, np.concatenate([opened.ids[0], drawn]))


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    """Byte-level merges, in which a space belongs to the word behind it, as GPT-2 has them."""
    folder = tmp_path_factory.mktemp("gpt2")
    parity.write(parity.MODELS["gpt2_scalar"], folder)
    return tokenizer_config.load(folder).tokenizer


def test_messages_without_a_template_are_sampled_as_they_are_learned(spaced):
    own = Reads(Reader(spaced, None, 999, True), (0,))
    prompt = (("user", "Hi"),)
    record = RatedText("", "", "", "the fox", 0.0, prompt=prompt)
    learned = language.encode([record], own, 999).examples
    start = int(learned.starts[0])
    opened = language.prompts([prompt], own, 999)
    np.testing.assert_array_equal(learned.tokens[0][:start], opened.ids[0])
    assert opened.leads == [" "] and spaced.decode(opened.ids[0]).endswith("assistant:")
    drawn = learned.tokens[0][start:-1]
    assert language.completion(drawn, opened.ids[0], opened.leads[0], own) == "the fox"


def test_completions_whose_first_word_joins_the_prompt_share_less_of_it(spaced):
    pair = Pair("a", "d", "1", "It is ", "the fox", " no")
    made, counts = encode.encode([pair], Reader(spaced, None, 99, True))
    for tokens, text in zip(made.tokens, ("It is the fox", "It is  no"), strict=True):
        np.testing.assert_array_equal(tokens, spaced.encode([text], 99)[0])
    shared = made.prefix(made.fixed[0])
    assert spaced.decode(made.tokens[0][:shared]) == "It is"
    assert any("join with a completion" in what for what in counts)


def test_pairs_of_segments_have_types_where_the_tokenizer_gives_them():
    records = [RatedText("", "", "", "no", 0.0, prompt="Hi"), RatedText("", "", "", "no", 0.0)]
    layout = Layout(pairs=True)
    for types in (True, False):
        made = encode.encode(records, reader(None, layout=layout, types=types)).examples
        assert (None if made.second is None else made.second.tolist()) == (
            [4, 4] if types else None
        )
        assert [len(t) for t in made.tokens] == [7, 4]


def test_a_folder_says_how_its_tokenizer_is_used(tmp_path):
    parity.write(parity.MODELS["llama_eos_list"], tmp_path)
    read = tokenizer_config.load(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    assert read.eos_ids == tuple(about["eos_token_id"]) and len(read.eos_ids) > 1
    path = tmp_path / "tokenizer_config.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"truncation_side": "left", "split_special_tokens": True}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    changed = tokenizer_config.load(tmp_path)
    assert changed.cut_front and changed.escaped and changed.eos_ids == (*read.eos_ids, 7)
    path.write_text("[]")
    with pytest.raises(UserError, match="tokenizer_config.json: holds no JSON object"):
        tokenizer_config.load(tmp_path)
