"""Token ids: special tokens survive truncation, prompts lose their front, and bytes come back whole."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from rmjax import assets
from rmjax.data.tokenizer import Tokenizer, truncate
from rmjax.errors import UserError

BYTES = Tokenizer.bytes()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def minilm():
    return Tokenizer.from_file(assets.folder("minilm") / "tokenizer.json")


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


@given(TEXT.filter(bool).map(lambda t: t.replace("\n", "/")), TEXT, st.integers(8, 60))
def test_the_prompt_loses_its_front_and_only_then_the_completion_its_end(prompt, completion, most):
    ((ids,), cut) = BYTES.encode_pairs([prompt], [completion], most)
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
    kept, tails, cut = truncate(prompt, completions, most, boundaries)
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
    ((group,), cut) = BYTES.encode_groups(["one\ntwo\nthree"], [["yes", "no, never"]], 24)
    text = lambda ids: tokenizers.Tokenizer.from_str(BYTES.to_json()).decode(ids, False)
    assert (text(group.prompt), cut) == ("<s>two\nthree</s>", 0)
    assert [text(ids) for ids in group.completions] == ["yes</s>", "no, never</s>"]
    ((group,), cut) = BYTES.encode_groups(["one\ntwo\nthree"], [["yes", "no, never"]], 10)
    assert (text(group.prompt), cut) == ("<s></s>", 1)
    assert [text(ids) for ids in group.completions] == ["yes</s>", "no, nev</s>"]


def test_an_empty_prompt_leaves_a_text_of_its_own():
    found, cut = BYTES.encode_pairs(["", ""], ["ab", 20 * "x"], 8)
    assert cut == 1
    for ids, text in zip(found, BYTES.encode(["ab", 20 * "x"], 8), strict=True):
        np.testing.assert_array_equal(ids, text)


def test_pretrained_ids_and_pairs_with_truncation(minilm):
    assert (minilm.vocab_size, minilm.pad_id) == (30522, 0)
    assert list(minilm.encode(["hello world"], 64)[0]) == [101, 7592, 2088, 102]
    long = " ".join(["word"] * 300)  # beyond the 128 tokens at which its file truncates and pads
    assert [len(ids) for ids in minilm.encode([long, "a", long], 256)] == [256, 3, 256]
    (a, b, c), (x, y) = (words(minilm, t)[0] for t in ("one two three", "four five"))
    found, cut = minilm.encode_pairs(["one two three"] * 3, ["four five"] * 3, 7)
    assert [list(ids) for ids in found] == [[101, b, c, 102, x, y, 102]] * 3
    assert cut == 0
    assert a not in found[0]


def test_special_tokens_written_in_a_text_are_text(minilm):
    (ids,) = minilm.encode(["[CLS] hello [SEP][PAD]"], 64)
    assert (list(ids).count(101), list(ids).count(102), list(ids).count(0)) == (1, 1, 0)
    (ids,) = BYTES.encode(["<s></s><pad>"], 64)
    assert (list(ids).count(1), list(ids).count(2), list(ids).count(0)) == (1, 1, 0)


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
        (ids,) = tokenizer.encode(["1+1=2 <s>"], 99)
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
    (group,), _ = BPE.encode_groups(["the film"], [[" was", " is"]], 99)
    assert (
        group.prompt[0] == 1 and group.prompt[-1] != 2
    )  # nothing stands between prompt and answer
    assert [c[-1] for c in group.completions] == [2, 2]


def test_a_vocabulary_smaller_than_bytes_is_refused():
    assert Tokenizer.bpe(["ab"], 259).vocab_size == 259
    with pytest.raises(ValueError, match="needs 259 tokens or more, got 258"):
        Tokenizer.bpe(["ab"], 258)


@pytest.mark.parametrize("made", [BYTES, Tokenizer.bpe(["a prime and a river"] * 9, 262)])
def test_for_prompts_a_text_alone_is_read_as_what_an_answer_follows(made):
    read, prompts, answers = made.for_prompts(), ["a prime", "r"], [["and", "a"], ["river"]]
    want, _ = made.encode_groups(prompts, answers, 99)
    found, _ = read.encode_groups(prompts, answers, 99)
    others = tokenizers.Tokenizer.from_str(read.to_json())  # as another library has it
    for prompt, one, same in zip(prompts, want, found, strict=True):
        np.testing.assert_array_equal(others.encode(prompt).ids, one.prompt)
        np.testing.assert_array_equal(same.prompt, one.prompt)
        for a, b in zip(one.completions, same.completions, strict=True):
            np.testing.assert_array_equal(a, b)
    assert read.for_prompts().to_json() == read.to_json()
