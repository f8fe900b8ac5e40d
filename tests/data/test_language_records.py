"""What a language model learns of a record: its targets, its stop, its pieces, and where rows keep each of them."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmjax.data import chat, language, pipeline
from rmjax.data.encode import Reader, told
from rmjax.data.examples import Examples
from rmjax.data.language import Reads
from rmjax.data.records import Pair, Process, Ranking, RatedText, Text
from rmjax.data.tokenizer import Layout, Tokenizer
from rmjax.errors import UserError

BYTES = Tokenizer.bytes()  # <s> prompt answer </s>
BARE = Tokenizer.from_json(json.dumps(json.loads(BYTES.to_json()) | {"post_processor": None}))
CHATML = chat.Template(
    "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}",
    special_tokens=("<s>", "</s>"),
)
STOP = 2


def reads(tokenizer=BYTES, template=None, share=True):
    return Reads(Reader(tokenizer, template, 10**6, share), (STOP,))


def escaped(*parts):
    """Reads special tokens that a text spells as text."""
    own = reads(*parts)
    return own._replace(reader=own.reader._replace(layout=Layout(escaped=True)))


def text(answer, prompt="", weight=1.0):
    return Text("i", "d", "o", answer, prompt, weight)


def pair(prompt, chosen, rejected, weight=1.0):
    return Pair("i", "d", "o", prompt, chosen, rejected, weight=weight)


def ids(said):
    return [int(i) for i in BARE.encode([said], 10**6, Layout(escaped=True))[0]]


def targets(examples):
    """The tokens to predict of each text."""
    found = zip(examples.tokens, examples.starts, strict=True)
    return [[int(t) for t in tokens[start:]] for tokens, start in found]


def test_the_answer_and_its_one_stop_are_the_targets():
    records = [text("yes", "Q?"), text("no"), text("a</s>", "b")]
    found = language.encode(records, escaped(), 99).examples
    assert targets(found) == [[*ids("yes"), STOP], [*ids("no"), STOP], [*ids("a</s>"), STOP]]
    assert list(found.tokens[0]) == [1, *ids("Q?"), *ids("yes"), STOP]
    assert [len(g) for g in found.fixed] == [1, 1, 1] and not found.share
    # Where the tokenizer adds nothing: the stop is ours, and the first token of all has nothing before it.
    found = language.encode(records, escaped(BARE), 99).examples
    assert targets(found) == [[*ids("yes"), STOP], [*ids("o"), STOP], [*ids("a</s>"), STOP]]
    assert list(found.tokens[1]) == [*ids("no"), STOP]


def test_what_a_template_puts_behind_the_stop_is_no_target():
    (found,) = language.encode([text("Hm.", "Hi?")], reads(BYTES, CHATML), 99).examples.tokens
    assert BYTES.decode(found) == "user:Hi?\nassistant:Hm."
    made = language.encode([text("Hm.", "Hi?"), text("a")], reads(BYTES, CHATML), 99).examples
    assert targets(made) == [[*ids("Hm."), STOP], [*ids("a"), STOP]]
    # An answer that spells the stop ends there, or, where special tokens are text, not.
    made = language.encode([text("H</s>m.", "Hi?")], reads(BYTES, CHATML), 99)
    assert targets(made.examples) == [[*ids("H"), STOP]]
    assert "texts spell special tokens such as </s>, which are read as special" in made.notes[0]
    made = language.encode([text("H</s>m.", "Hi?")], escaped(BYTES, CHATML), 99)
    assert targets(made.examples) == [[*ids("H</s>m."), STOP]]
    assert "which are read as text" in made.notes[0]


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), min_size=1, max_size=4),
    st.integers(8, 20),
    st.booleans(),
)  # fmt: skip
def test_long_texts_are_cut_so_that_every_token_is_predicted_once(texts, most, bare):
    own = reads(BARE if bare else BYTES)
    whole = language.encode([text(t) for t in texts], own, 10**6).examples
    cut, counts = language.encode([text(t) for t in texts], own, most)
    assert max(map(len, cut.tokens)) <= most and not told(counts)
    record = cut.per_text["record"]
    for i, full in enumerate(whole.tokens):
        pieces = [j for j in range(len(record)) if record[j] == i]
        assert sum((targets(cut)[j] for j in pieces), []) == targets(whole)[i]
        at = 0  # each piece goes on from the token that the one before it ended with
        for j in pieces:
            np.testing.assert_array_equal(cut.tokens[j], full[at : at + len(cut.tokens[j])])
            assert len(cut.tokens[j]) > cut.starts[j] >= 1
            at += len(cut.tokens[j]) - 1
    assert cut.fixed is not None and sorted(np.concatenate(cut.fixed)) == [*range(len(record))]


def test_prompts_lose_their_front_and_answers_their_end_only_alone():
    records = [text("abc", "0123456789"), text("abcdefghijkl", "0123456789"), text("ab", "01")]
    found, counts = language.encode(records, reads(), 10)
    assert [list(t) for t in found.tokens] == [
        [1, *ids("56789"), *ids("abc"), STOP],
        [*ids("9"), *ids("abcdefghi")],
        [1, *ids("01"), *ids("ab"), STOP],
    ]  # fmt: skip
    assert [int(s) for s in found.starts] == [len(found.tokens[0]) - 4, 1, 3]
    assert told(counts) == ["1 answers cut to 10 tokens"]
    kept = language.prompts(["0123456789", "ab"], reads(), 6)
    assert [list(p) for p in kept.ids] == [[1, *ids("56789")], [1, *ids("ab")]]
    assert kept.leads == ["", ""] and kept.notes == ["1 prompts lost their front, to 6 tokens"]


@pytest.mark.parametrize("tokenizer", [BYTES, BARE])
def test_the_first_of_all_tokens_is_never_a_target(tokenizer):
    records = [pair("", "a" * 30, "b"), pair("Q", "c", "d" * 30)]
    found = language.encode(records, reads(tokenizer), 12, compare=True).examples
    assert found.starts.min() >= 1 and max(map(len, found.tokens)) <= 12
    assert all(len(t) for t in targets(found))


def test_answers_to_compare_are_groups_and_likelihood_is_of_the_best():
    found = language.encode(
        [pair("Q?", "yes", "nope", 2.0), pair("", "a", "b")], reads(), 99, compare=True
    ).examples
    assert targets(found) == [[*ids(t), STOP] for t in ("yes", "nope", "a", "b")]
    assert [list(g) for g in found.fixed] == [[0, 1], [2, 3]] and found.share
    pairs = found.pairs(found.fixed[0], ())
    assert (int(pairs["chosen"][0]), int(pairs["rejected"][0]), pairs["pair_weight"][0]) == (0, 1, 2)  # fmt: skip
    np.testing.assert_array_equal(found.per_token["token_weight"], [2] * 9 + [1] * 4)
    np.testing.assert_array_equal(found.per_token["data_weight"], [2] * 4 + [0] * 5 + [1, 1, 0, 0])
    ranked = [Ranking("i", "d", "o", "Q", ("a", "bb", "c"), (1.0, 3.0, 1.0))]
    found = language.encode(ranked, reads(), 99, compare=True).examples
    np.testing.assert_array_equal(found.per_token["data_weight"], [0, 0, 1, 1, 1, 0, 0])
    pairs = found.pairs(found.fixed[0], ())
    assert (pairs["chosen"].tolist(), sorted(pairs["rejected"])) == ([1, 1], [0, 2])
    alone = language.encode(ranked, reads(), 99).examples
    assert targets(alone) == [[*ids("bb"), STOP]]


def test_mismatched_answers_are_to_another_record():
    pairs = [pair("A", "a1", "a2"), pair("B", "b1", "b2"), pair("C", "c1", "c2")]
    found = language.encode(pairs, reads(), 99, compare=True).examples
    other = language.mismatched(found, np.array([2, 3, 0, 1, 4, 5]), 99)
    said = [BYTES.decode(t) for t in other.tokens]
    assert said == ["Bc2", "Bc2", "Ab2", "Ab2", "Ca2", "Ca2"]
    assert targets(other)[0] == [*ids("c2"), STOP]
    texts = language.encode([text("a", "A"), text("b", "B")], reads(), 99, compare=True).examples
    other = language.mismatched(texts, np.array([0, 1]), 99)
    assert [BYTES.decode(t) for t in other.tokens] == ["Ab", "Ba"]
    short = language.mismatched(found, np.array([2, 3, 0, 1, 4, 5]), 4)
    assert max(map(len, short.tokens)) == 4 and all(np.diff(short.first_target) >= 1)


def test_opening_words_become_prompts():
    rated = RatedText("i", "d", "o", "a fine old film", 1.0, weight=0.5)
    found = language.opened([rated, text("too short")], 2)
    assert [(r.prompt, r.text, r.weight, r.document) for r in found] == [("a fine", " old film", 0.5, "o")]  # fmt: skip
    cut = dataclasses.replace(text("a log that was cut"), reward=1.0, stopped=False)
    opened = language.opened([cut, rated], 2)
    assert [(r.reward, r.stopped) for r in opened] == [(1.0, False), (None, True)]
    with pytest.raises(UserError, match="no text has more than 4 words"):
        language.opened([rated], 4)
    with pytest.raises(UserError, match=r"these data have prompts, so use prompts='none\(\)'"):
        language.opened([text("a b c d", "Q")], 2)
    with pytest.raises(UserError, match="solutions in steps are no answers"):
        language.encode([Process("i", "d", "o", "Q", ("a",), (1.0,))], reads(), 99)
    with pytest.raises(UserError, match="'prompts': a prompt is empty"):
        language.prompts(["ab", ""], reads(BARE), 8)
    assert [list(p) for p in language.prompts([""], reads(), 8).ids] == [[1]]


def check(batch, examples):
    """Every listed target of every row is, with the token before it, that of its text; none is missing or twice."""
    seen, places = {}, batch["score_at"].shape[1]
    take = lambda name, at: np.take_along_axis(batch[name], batch[at], axis=1)
    said, before = take("tokens", "target_at"), take("tokens", "source_at")
    at = [take("positions", name) for name in ("target_at", "source_at")]
    for row, listed in enumerate(batch["text_of"]):
        for slot in np.flatnonzero(listed < places):
            text = int(batch["number"][row, listed[slot]])
            one = (int(before[row, slot]), int(said[row, slot]), float(batch["mark"][row, slot]))
            assert at[0][row, slot] == at[1][row, slot] + 1
            seen.setdefault(text, []).append(one)
        assert np.all(batch["mark"][row, listed == places] == 0)
    for text, found in seen.items():
        tokens, start = examples.tokens[text], int(examples.starts[text])
        marks = examples.per_token["mark"][slice(*examples.first_target[[text, text + 1]])]
        want = zip(tokens[start - 1 : -1].tolist(), tokens[start:].tolist(), marks.tolist(), strict=True)  # fmt: skip
        assert found == list(want)
    return sorted(seen)


def drawn(rng, share):
    """Groups of texts that begin with one prompt, and what stands for each of their tokens to predict."""
    tokens, starts, fixed = [], [], []
    for _ in range(int(rng.integers(1, 8))):
        prompt = rng.integers(1, 50, rng.integers(1, 9))
        size = int(rng.integers(1, 4))
        fixed.append(np.arange(len(tokens), len(tokens) + size))
        for _ in range(size):
            # Answers may begin alike, and one may be the beginning of another.
            answer = rng.integers(50, 52, rng.integers(1, 7))
            tokens.append(np.concatenate([prompt, answer]).astype(np.int32))
            starts.append(len(prompt))
    count = sum(map(len, tokens)) - sum(starts)
    return Examples(
        tokens=tokens, ids=[], weight=np.ones(len(tokens), np.float32), kin=np.zeros(len(tokens)),
        per_text={"number": np.arange(len(tokens), dtype=np.int32), "rating": rng.random(len(tokens), np.float32)},
        fixed=fixed, share=share, starts=np.array(starts), per_token={"mark": 1 + np.arange(count, dtype=np.float32)},
    )  # fmt: skip


@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 4))
def test_rows_list_every_target_behind_its_own_past(seed, share, batch_size):
    examples = drawn(np.random.default_rng(seed), share)
    made = pipeline.batches(examples, seed=seed, epochs=1.0, batch_size=batch_size)
    packed = sum((check(made[k], examples) for k in range(len(made))), [])
    assert sorted(packed) == [*range(len(examples.tokens))]


@given(st.integers(0, 10**6))
def test_a_row_for_each_text_lists_every_target_too(seed):
    examples = drawn(np.random.default_rng(seed), False)
    count, longest = len(examples.tokens), int(examples.lengths.max())
    shape = pipeline.Shape(count + 1, longest, 1, 0, 1, 1, 0, 20)
    batch = pipeline.assemble(examples, list(np.arange(count)[:, None]), shape, ())
    assert check(batch, examples) == [*range(count)]
    assert (batch["segments"].max(axis=1) == [*np.ones(count), 0]).all()


@given(st.integers(0, 10**6), st.booleans())
def test_scoring_rows_list_every_target_too(seed, share):
    examples = drawn(np.random.default_rng(seed), share)
    texts = []
    for batch, found, places in pipeline.score_batches(examples, pad_id=0, budget=64):
        number = np.full(batch["score_at"].size, -1)
        number[places] = found
        batch["number"] = number.reshape(batch["score_at"].shape)
        texts += check(batch, examples)
    assert sorted(texts) == [*range(len(examples.tokens))]


def test_an_encoder_reads_prompts_and_the_decoder_begins_with_0():
    own = reads()._replace(encoder=True)
    records = [text("abc", "0123456789"), text("abcdefghijkl", "01")]
    found, counts = language.encode(records, own, 10)
    read = [[1, *ids("3456789"), 2], [1, *ids("01"), 2]]
    read[0][1:1] = ids("2")
    assert [list(t) for t in found.encoder_tokens] == read  # each has max_length of its own
    assert [list(t) for t in found.tokens] == [[0, *ids("abc"), STOP], [0, *ids("abcdefghi")]]
    assert found.starts.tolist() == [1, 1] and told(counts) == ["1 answers cut to 10 tokens"]
    assert found.encoder_ratio == 1.0 and found.counts(np.array([0, 1])) == (15, 14)
    kept = language.prompts(["0123456789"], own, 10).ids
    assert list(kept[0]) == read[0]  # what is sampled from is what is trained on


def test_answers_to_one_prompt_are_read_by_the_encoder_once():
    records = [pair("a long prompt of words", "b", "cd"), pair("Q", "e", "f")]
    found = language.encode(records, reads()._replace(encoder=True), 99, compare=True).examples
    assert found.encoder_ratio == 2.0  # 27 tokens for 17
    both = found.fixed[0]
    assert found.prefix(both) == 1 and found.counts(both) == (6, 24)
    assert found.length(both) == 12 and found.encoder_room(40) == 80
    other = language.mismatched(found, np.arange(4), 99)
    assert [list(t) for t in other.tokens] == [
        [0, *ids("f"), STOP], [0, *ids("f"), STOP], [0, *ids("cd"), STOP], [0, *ids("cd"), STOP],
    ]  # fmt: skip
    for got, want in zip(other.encoder_tokens, found.encoder_tokens, strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(UserError, match="'prompts': the encoder of this policy reads prompts"):
        language.encode([text("a", "b"), text("a")], reads()._replace(encoder=True), 99)
