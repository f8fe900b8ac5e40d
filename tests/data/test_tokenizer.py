"""Token ids: special tokens survive truncation, prompts lose their front, and bytes come back whole."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from rmjax import assets
from rmjax.data.tokenizer import Layout, Tokenizer, truncate
from rmjax.errors import UserError

BYTES = Tokenizer.bytes()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def minilm():
    return Tokenizer.from_file(assets.folder("minilm") / "tokenizer.json")


PAIRS = Layout(pairs=True)
ESCAPED = Layout(escaped=True)


def whole(tokenizer, prompts, completions, most, layout=PAIRS):
    """Ids of each prompt with its completion, and how many of these were cut."""
    groups = [[(p, c)] for p, c in zip(prompts, completions, strict=True)]
    found, cut = tokenizer.encode_groups(groups, most, layout)
    return [halves.whole for (halves,) in found], cut


def words(tokenizer, *texts):
    """Ids of the texts, special tokens left out."""
    return [list(ids[1:-1]) for ids in tokenizer.encode(texts, 10**6)]


@given(TEXT)
def test_bytes_come_back_whole(text):
    (ids,) = BYTES.encode([text], 10**6)
    assert len(ids) == len(text.encode()) + 2
    assert ids.dtype == np.int32
    back = tokenizers.Tokenizer.from_str(BYTES.to_json())
    assert back.decode(ids.tolist(), skip_special_tokens=False) == f"<s>{text}</s>"
    assert (ids[0], ids[-1], BYTES.pad_id, BYTES.vocab_size) == (1, 2, 0, 259)


@given(TEXT, st.integers(8, 20))
def test_a_long_text_loses_its_end_and_keeps_its_special_tokens(text, max_length):
    whole, cut = (BYTES.encode([text], n)[0] for n in (10**6, max_length))
    assert len(cut) == min(len(whole), max_length)
    assert (cut[0], cut[-1]) == (1, 2)
    np.testing.assert_array_equal(cut[:-1], whole[: len(cut) - 1])


@given(TEXT.filter(bool).map(lambda t: t.replace("\n", "/")), TEXT.filter(bool), st.integers(8, 60))
def test_the_prompt_loses_its_front_and_only_then_the_completion_its_end(prompt, completion, most):
    ((ids,), cut) = whole(BYTES, [prompt], [completion], most)
    before, after = words(BYTES, prompt, completion)
    room = most - 3  # <s> prompt </s> completion </s>
    assert cut == (len(after) > room)
    after = after[:room]
    before = before[max(len(before) - (room - len(after)), 0) :]
    assert list(ids) == [1, *before, 2, *after, 2]


@given(
    st.integers(0, 40), st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.integers(4, 20), st.sets(st.integers(0, 40)),
)  # fmt: skip
def test_all_completions_share_one_truncated_prompt(length, others, most, places):
    prompt, boundaries = np.arange(length), np.array(sorted(places), np.int64)
    completions = [np.arange(n) for n in others]
    (kept, *same), tails, cut = truncate([prompt] * len(others), completions, most, boundaries)
    assert all(np.array_equal(kept, other) for other in same)
    assert [len(t) for t in tails] == [min(n, most) for n in others]
    assert cut == sum(n > most for n in others)
    assert all(list(t) == list(range(len(t))) for t in tails)
    room = most - min(max(others), most)
    first = length - len(kept)
    assert list(kept) == list(range(first, length))
    least = max(length - room, 0)
    near = [b for b in places if least <= b <= least + room // 4]
    assert first == (0 if length <= room else min(near, default=least))


def test_a_prompt_is_cut_where_a_line_begins_and_serves_every_completion():
    text = lambda ids: tokenizers.Tokenizer.from_str(BYTES.to_json()).decode(ids, False)
    asked = [[("one\ntwo\nthree", "yes"), ("one\ntwo\nthree", "no, never")]]
    for layout, between in ((PAIRS, "</s>"), (Layout(), "")):
        most = 23 + len(between) // 4
        (group,), cut = BYTES.encode_groups(asked, most, layout)
        assert [text(h.prompt) for h in group] == [f"<s>two\nthree{between}"] * 2 and cut == 0
        assert [text(h.completion) for h in group] == ["yes</s>", "no, never</s>"]
        (group,), cut = BYTES.encode_groups(asked, most - 14, layout)
        assert [text(h.prompt) for h in group] == [f"<s>{between}"] * 2 and cut == 1
        assert [text(h.completion) for h in group] == ["yes</s>", "no, nev</s>"]


def test_an_empty_prompt_leaves_a_text_of_its_own():
    found, cut = whole(BYTES, ["", ""], ["ab", 20 * "x"], 8)
    assert cut == 1
    for ids, text in zip(found, BYTES.encode(["ab", 20 * "x"], 8), strict=True):
        np.testing.assert_array_equal(ids, text)


def test_pretrained_ids_and_pairs_with_truncation(minilm):
    assert (minilm.vocab_size, minilm.pad_id) == (30522, 0)
    assert list(minilm.encode(["hello world"], 64)[0]) == [101, 7592, 2088, 102]
    long = " ".join(["word"] * 300)  # beyond the 128 tokens at which its file truncates and pads
    assert [len(ids) for ids in minilm.encode([long, "a", long], 256)] == [256, 3, 256]
    (a, b, c), (x, y) = (words(minilm, t)[0] for t in ("one two three", "four five"))
    found, cut = whole(minilm, ["one two three"] * 3, ["four five"] * 3, 7)
    assert [list(ids) for ids in found] == [[101, b, c, 102, x, y, 102]] * 3
    assert cut == 0
    assert a not in found[0]


def test_special_tokens_written_in_a_text_are_special_or_text(minilm):
    count = lambda ids, tokens: tuple(list(ids).count(t) for t in tokens)
    for made, text, tokens, read in (
        (minilm, "hello [SEP][PAD]", (101, 102, 0), (1, 2, 1)),
        (BYTES, "a<s></s><pad>", (1, 2, 0), (2, 2, 1)),
    ):
        (ids,) = made.encode([text], 64)
        assert count(ids, tokens) == read
        (ids,) = made.encode([text], 64, ESCAPED)
        assert count(ids, tokens) == (1, 1, 0)


def test_a_text_that_spells_its_own_beginning_has_one():
    for most in (10**6, 6):
        ((ids,), _) = whole(BYTES, [""], ["<s>abcdefg"], most, Layout())
        assert list(ids).count(1) == 1 and ids[0] == 1 and len(ids) == min(9, most)
        ((ids,), _) = whole(BYTES, ["<s>abc"], ["defg"], most, Layout())
        assert list(ids).count(1) == 1 and ids[0] == 1 and len(ids) == min(9, most)


def spaced():
    """Words with the space before them, as byte-level vocabularies have them."""
    vocabulary = {
        t: i
        for i, t in enumerate(["<s>", "A", ":", "Ġ", "y", "e", "s", "ye", "yes", "Ġyes", "a", "Ġa"])
    }
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [("y", "e"), ("ye", "s"), ("Ġ", "yes"), ("Ġ", "a")])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    return Tokenizer(made)


def test_a_token_across_the_border_belongs_to_the_completion():
    made, name = spaced(), lambda ids: [spaced().token(int(i)) for i in ids]
    for prompt, completion, want in (
        ("A: ", "yes", (["A", ":"], ["Ġyes"])),
        ("A:", " yes", (["A", ":"], ["Ġyes"])),
        ("A: y", "es", (["A", ":"], ["Ġyes"])),
        ("A:", "yes", (["A", ":"], ["yes"])),
        ("A: ", "A", (["A", ":", "Ġ"], ["A"])),
    ):
        (((halves,),), _) = made.encode_groups([[(prompt, completion)]], 99, Layout())
        assert (name(halves.prompt), name(halves.completion)) == want
        np.testing.assert_array_equal(halves.whole, made.encode([prompt + completion], 99)[0])
    # A prompt that waits for its completion ends where that one's first token begins.
    ids, lead = made.encode_openings(["A:", "A"], Layout())
    assert ([name(x) for x in ids], lead) == ([["A", ":"], ["A"]], ["", ""])


def test_white_space_that_joins_the_next_word_waits_for_it():
    made = spaced()
    ids, lead = made.encode_openings(["A: ", "A:"], Layout())
    assert [made.token(int(i)) for i in ids[0]] == ["A", ":"] and lead == [" ", ""]
    assert made.decode_behind(ids[0], np.array([9])) == " yes"


def test_a_front_is_cut_where_the_model_says_so():
    (cut,) = BYTES.encode(["abcdef"], 6, Layout(cut_front=True))
    assert BYTES.decode(cut) == "cdef" and (cut[0], cut[-1], len(cut)) == (1, 2, 6)


def test_lines_end_where_their_last_token_does():
    made = BYTES.encode_lines(["Q", ""], [["a\n", "bc\n"], ["<s>d\n"]], Layout())
    for (halves, ends), want in zip(made, (["a\n", "bc\n"], ["d\n"]), strict=True):
        starts = [0, *(ends[:-1] + 1)]
        parts = [halves.completion[a : b + 1] for a, b in zip(starts, ends, strict=True)]
        assert [BYTES.decode(p) for p in parts] == want
        assert list(halves.completion[ends[-1] + 1 :]) == [2]


def test_json_round_trip_gives_the_same_ids(minilm):
    texts = ["Größe 日本 [SEP]", "", "a b\tc\r\n"]
    for tokenizer in (minilm, BYTES):
        again = Tokenizer.from_json(tokenizer.to_json())
        assert again.to_json() == tokenizer.to_json()
        assert (again.pad_id, again.vocab_size) == (tokenizer.pad_id, tokenizer.vocab_size)
        for got, want in zip(again.encode(texts, 9), tokenizer.encode(texts, 9), strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_missing_or_wrong_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent.json: No such file.*needs its tokenizer.json"):
        Tokenizer.from_file(tmp_path / "absent.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: this is not a tokenizer.json"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="this is not a tokenizer.json"):
        Tokenizer.from_json("[")


def test_decoding_leaves_special_tokens_out():
    for tokenizer in (BYTES, Tokenizer.from_json(BYTES.to_json())):
        (ids,) = tokenizer.encode(["1+1=2 <s>"], 99, ESCAPED)
        assert tokenizer.decode(np.append(ids, 0)) == "1+1=2 <s>"


CORPUS = ["the film was lovely", "the plot was dull", "a lovely scene, a dull score"] * 3
BPE = Tokenizer.bpe(CORPUS, 290)


@given(st.lists(TEXT, max_size=3))
def test_learned_merges_bring_every_text_back(texts):
    found = BPE.encode(texts, 10**6)
    assert [BPE.decode(ids) for ids in found] == texts
    for ids in found:
        assert (ids[0], ids[-1]) == (1, 2) and not np.any(ids[1:-1] < 3)


def test_learned_merges_are_those_of_the_texts_alone():
    assert Tokenizer.bpe(CORPUS, 290).to_json() == BPE.to_json()
    assert Tokenizer.bpe(CORPUS[:1], 290).to_json() != BPE.to_json()
    (film,), (plain,) = (
        BPE.encode(["the film was lovely"], 99),
        BYTES.encode(["the film was lovely"], 99),
    )
    assert len(film) < len(plain) and BPE.vocab_size == 290
    asked = [[("the film", " was"), ("the film", " is")]]
    (group,), _ = BPE.encode_groups(asked, 99, Layout())
    for halves in group:  # nothing stands between prompt and answer
        assert halves.prompt[0] == 1 and halves.prompt[-1] != 2 and halves.completion[-1] == 2


def test_a_vocabulary_smaller_than_bytes_is_refused():
    assert Tokenizer.bpe(["ab"], 259).vocab_size == 259
    with pytest.raises(ValueError, match="needs 259 tokens or more, got 258"):
        Tokenizer.bpe(["ab"], 258)


@pytest.mark.parametrize("made", [BYTES, Tokenizer.bpe(["a prime and a river"] * 9, 262)])
def test_for_prompts_a_text_alone_is_read_as_what_an_answer_follows(made):
    read, prompts = made.for_prompts(), ["a prime", "r"]
    want, _ = made.encode_openings(prompts, Layout())
    others = tokenizers.Tokenizer.from_str(read.to_json())  # as another library has it
    for prompt, ids in zip(prompts, want, strict=True):
        np.testing.assert_array_equal(others.encode(prompt).ids, ids)
        (((halves,),), _) = made.encode_groups([[(prompt, " and")]], 99, Layout())
        np.testing.assert_array_equal(halves.prompt, ids)
    assert read.for_prompts().to_json() == read.to_json()
