"""Makes tests/golden/parity.json: what transformers reads of each folder of parity.py and cases/, and its scores.

    pip install -r requirements-reference.txt && python -m tests.golden.make_parity [--train]

Every row is scored alone, and again in batches padded on the right and on the left: where these differ, or are refused,
is written down and has to be as `expected` says. --train learns the vocabularies of parity/tokenizers anew, which
another version of tokenizers may learn otherwise.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import tokenizers
import torch
import transformers
import trl
from tokenizers import models, pre_tokenizers, trainers
from trl.data_utils import _tokenize

from tests.golden import parity, parity_models, parity_tokenizers
from tests.golden.parity import Case, Row

torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class Reference:
    """A folder as transformers loads it."""

    def __init__(self, folder: Path):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        self.per_token = config["architectures"][0].endswith("TokenClassification")
        self.family = config["model_type"]
        kinds = transformers.AutoModelForSequenceClassification
        if self.per_token:
            kinds = transformers.AutoModelForTokenClassification
        options = {"dtype": torch.float32, "attn_implementation": "eager"}
        found = kinds.from_pretrained(folder, output_loading_info=True, **options)
        self.model, about = found[0].eval(), found[1]
        assert not any(about[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def read(self, row: Row) -> dict[str, list[int]]:
        """The tokens of a line of JSON: by the template where there is one, else as this family reads pairs."""
        tokenizer = self.tokenizer
        if "text" in row:
            return tokenizer(row["text"])
        if "messages" in row or tokenizer.chat_template:
            messages = row.get("messages") or [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
            made = tokenizer.apply_chat_template(messages, tools=row.get("tools"), return_dict=True)
            assert (
                "tools" in row or made["input_ids"] == _tokenize(tokenizer, messages)["input_ids"]
            )
            return made
        if self.family in parity_models.ENCODERS:
            return tokenizer(row["prompt"], row["completion"])
        return tokenizer(row["prompt"] + row["completion"])

    @torch.no_grad()
    def score(self, encoded: Sequence[dict[str, list[int]]]) -> list[np.ndarray]:
        """The logits of rows of one length: [outputs] each, or [tokens, outputs]."""
        arrays = {key: torch.tensor([one[key] for one in encoded]) for key in encoded[0]}
        return list(self.model(**arrays).logits.numpy())

    def batched(
        self, encoded: list[dict[str, list[int]]], alone: list[np.ndarray], side: str
    ) -> str:
        """Whether all rows in one batch have the scores that each has alone: "same", "others" or why it is refused."""
        if self.tokenizer.pad_token_id is None:
            return "refused: no pad token"
        if self.family == "t5":  # which refuses texts of different numbers of </s> in one batch
            ends = [one["input_ids"].count(self.model.config.eos_token_id) == 1 for one in encoded]
            encoded = [one for one, plain in zip(encoded, ends, strict=True) if plain]
            alone = [one for one, plain in zip(alone, ends, strict=True) if plain]
        most = max(len(one["input_ids"]) for one in encoded)
        fills = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": 0}
        more = lambda one, key: [fills[key]] * (most - len(one[key]))
        padded = [
            {k: one[k] + more(one, k) if side == "right" else more(one, k) + one[k] for k in one}
            for one in encoded
        ]
        try:
            found = self.score(padded)
        except ValueError as error:
            return f"refused: {error}"
        if self.per_token:
            cut = slice(None) if side == "right" else slice(None, None, -1)
            found = [x[cut][: len(y)][cut] for x, y in zip(found, alone, strict=True)]
        close = lambda x, y: np.allclose(x, y, rtol=1e-4, atol=1e-4)
        return "same" if all(map(close, found, alone)) else "others"


def expected(case: Case, reference: Reference, side: str) -> str:
    """What `Reference.batched` has to say: where transformers itself scores a row in a batch as it does alone."""
    ours, pad = reference.tokenizer.pad_token_id, reference.model.config.pad_token_id
    finds = case.family in ("gpt2", *parity_models.ROTATED) and not reference.per_token
    if ours is None:
        return "refused: no pad token"
    if finds and pad is None:
        return "refused: Cannot handle batch sizes > 1 if no padding token is defined."
    if side == "right":  # the last token that is not the model's pad may be the tokenizer's
        return "others" if finds and pad != ours else "same"
    if (
        case.family in ("roberta", "mpnet") and reference.per_token
    ):  # its positions are counted from the ids
        return "same"
    return "same" if case.family in parity_models.ROTATED else "others"


def golden(reference: Reference, rows: Sequence[Row]) -> tuple[list[Row], list[np.ndarray]]:
    encoded = [dict(reference.read(row)) for row in rows]
    logits = [reference.score([one])[0] for one in encoded]
    kept = {"input_ids": "ids", "token_type_ids": "types"}
    found = [
        {ours: one[key] for key, ours in kept.items() if key in one} | {"logits": _short(scores)}
        for one, scores in zip(encoded, logits, strict=True)
    ]
    return found, logits


def _short(values: np.ndarray) -> Any:
    if values.ndim > 1:
        return [_short(row) for row in values]
    return [float(f"{x:.9g}") for x in values]


def scored(name: str, case: Case) -> Row:
    """One entry of parity.json, with the checks that make it worth having."""
    rows = parity.rows(case)
    with tempfile.TemporaryDirectory() as folder:
        parity.write(case, Path(folder))
        reference = Reference(Path(folder))
    found, logits = golden(reference, rows)
    encoded = [dict(reference.read(row)) for row in rows]
    _check(case, reference, rows, found)
    batched = {side: reference.batched(encoded, logits, side) for side in ("right", "left")}
    _all_count(reference, encoded)
    for side, told in batched.items():
        assert told == expected(case, reference, side), (name, batched)
    return {"weights": parity.checksum(case), "batched": batched, "rows": found}


def _check(case: Case, reference: Reference, rows: list[Row], found: list[Row]) -> None:
    """Rows are long enough, tokens cross the border of prompt and completion, and scores differ."""
    longest = max(len(row["ids"]) for row in found)
    assert longest > reference.tokenizer.model_max_length
    if case.family in parity_models.ROTATED:
        assert longest > parity_models.ROTARY  # which nothing is cut to
    elif case.family in ("gpt2", *parity_models.ENCODERS):
        assert longest <= parity_models.LEARNED
    assert max(i for row in found for i in row["ids"]) < parity_models.VOCABULARY
    if not case.template and case.family not in parity_models.ENCODERS:
        bare = lambda text: reference.tokenizer(text, add_special_tokens=False)["input_ids"]
        parts = [(bare(r["prompt"]) + bare(r["completion"]), r) for r in rows if "prompt" in r]
        whole = [bare(r["prompt"] + r["completion"]) for _, r in parts]
        assert any(a != b for (a, _), b in zip(parts, whole, strict=True))
    last = [row["logits"][-1] if reference.per_token else row["logits"] for row in found]
    assert len({tuple(one) for one in last}) > len(last) - 3, "rows that cannot be told apart"
    assert np.std([one[0] for one in last]) > 0.1


def _all_count(reference: Reference, encoded: list[dict[str, list[int]]]) -> None:
    """No array can be left out unnoticed, but biases of keys, which softmax takes out where they are not rotated."""
    some = encoded[:9:4]
    before = [reference.score([one])[0] for one in some]
    for name, array in reference.model.state_dict().items():
        kept = array.clone()
        if name.endswith((".key.bias", ".k.bias")) or not array.is_floating_point():
            continue
        array.zero_()
        after = [reference.score([one])[0] for one in some]
        array.copy_(kept)
        moved = [np.abs(x - y).max() for x, y in zip(before, after, strict=True)]
        assert max(moved) > 3e-3, (name, moved)


def stored(folder: Path) -> list[Row]:
    """A folder of cases/: what transformers gives, which has to be what its expected.json says."""
    rows = [json.loads(line) for line in (folder / "input.jsonl").read_text("utf-8").splitlines()]
    reference = Reference(folder / "model")
    found, _ = golden(reference, rows)
    path = folder / "expected.json"
    told = json.loads(path.read_text("utf-8")) if path.exists() else {}
    assert told.get("ids", [row["ids"] for row in found]) == [row["ids"] for row in found], folder
    right = told.get("logits") or [[score] for score in told.get("correct", [])]
    for one, row in zip(right, found, strict=bool(right)):
        np.testing.assert_allclose(row["logits"], one, rtol=1e-4, atol=1e-5, err_msg=str(folder))
    return found


def trl_pads() -> None:
    """TRL's own trainer gives GPT-2, which has no pad, its eos as one, in the tokenizer and in the config."""
    line = {"chosen": "It is 4.", "rejected": "It is 5."}
    with tempfile.TemporaryDirectory() as folder:
        parity.write(parity.MODELS["gpt2_scalar"], Path(folder))
        trainer = trl.RewardTrainer(
            model=folder,
            args=trl.RewardConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False),
            train_dataset=datasets.Dataset.from_list([line]),
        )
    ids = parity_tokenizers.spelled("gpt2_pad_is_eos")
    assert trainer.processing_class.pad_token == ids["eos"] == ids["pad"]
    assert trainer.model.config.pad_token_id == trainer.processing_class.eos_token_id
    assert trainer.train_dataset[0]["chosen_ids"][-1] == trainer.processing_class.eos_token_id


CORPUS = (
    *parity.TEXTS[0:3:2],
    *(text for pair in parity.PAIRS for text in pair if not text.isspace()),
    *(text for turns in (parity.SYSTEM, parity.TURNS) for _, text in turns),
    "The brown dog and the quick fox: what is it that they like? Don't ask, it's nothing.",
    "What is the name of the colour that is not blue? Another one, perhaps: brown, or yes.",
    "user assistant system model tool name arguments function description",
    "You are a helpful assistant. Tell me about the quick brown fox and the lazy dog, please.",
    "yes no maybe yes no maybe, two spaces before and behind; one two three, good bad",
)


def train() -> None:
    """Learns the four vocabularies; special tokens are no part of them."""
    corpus = CORPUS * 2
    words = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(
        [*corpus, *(text.lower() for text in corpus)],
        trainers.WordPieceTrainer(vocab_size=330, special_tokens=["[UNK]"], show_progress=False),
    )
    _keep("wordpiece", {"vocabulary": _listed(words, "[UNK]")})
    of_bytes = tokenizers.Tokenizer(models.BPE())
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    of_bytes.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False),
    )
    _keep("bytes", {"vocabulary": _listed(of_bytes), "merges": _merges(of_bytes)})
    pieces = tokenizers.Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    simple = [text for text in corpus if text.isascii()]  # other characters are bytes
    pieces.train_from_iterator(simple, trainers.BpeTrainer(vocab_size=170, show_progress=False))
    _keep("pieces", {"vocabulary": _listed(pieces), "merges": _merges(pieces)})
    unigram = tokenizers.Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    unigram.train_from_iterator(
        corpus * 30,
        trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"]),
    )
    model = json.loads(unigram.to_str())["model"]
    scored = [[token, round(score, 5)] for token, score in model["vocab"] if token != "<unk>"]
    _keep("unigram", {"vocabulary": scored})


def _listed(tokenizer: tokenizers.Tokenizer, *without: str) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return [
        token for token in sorted(vocabulary, key=vocabulary.__getitem__) if token not in without
    ]


def _merges(tokenizer: tokenizers.Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]


def _keep(name: str, trained: Row) -> None:
    path = parity_tokenizers.HOME / f"{name}.json"
    path.write_text(json.dumps(trained, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    if "--train" in sys.argv[1:]:
        train()
    modules = (np, tokenizers, torch, transformers, trl)
    made: Row = {"versions": {m.__name__: m.__version__ for m in modules}, "models": {}}
    trl_pads()
    for name, case in parity.MODELS.items():
        made["models"][name] = scored(name, case)
        print(name, made["models"][name]["batched"])
    folders = sorted(path.parent for path in parity.CASES.rglob("input.jsonl"))
    made["cases"] = {str(f.relative_to(parity.CASES)): stored(f) for f in folders}
    parity.STORED.write_text(_lines(made), encoding="utf-8")


def _lines(value: Any, depth: int = 0) -> str:
    """JSON of one line a row, so that a difference shows which."""
    if depth == 5 or not isinstance(value, dict | list) or (value and "ids" in value):
        return json.dumps(value, separators=(",", ":"))
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_lines(one, depth + 1)}" for key, one in value.items()]
        return "{" + inner + f",{inner}".join(parts) + "\n" + " " * depth + "}" + "\n" * (not depth)
    return (
        "["
        + inner
        + f",{inner}".join(_lines(one, depth + 1) for one in value)
        + "\n"
        + " " * depth
        + "]"
    )


if __name__ == "__main__":
    main()
