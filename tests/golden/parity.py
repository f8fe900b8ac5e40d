"""Model folders of every family, head, tokenizer convention, template and padding, which parity.json has scores of.

`write` makes a folder as transformers would load it, of random weights that nobody has to store; no torch is needed.
make_parity.py computes the scores; tests/parity/test_parity.py holds rmjax to them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from tests.golden import parity_models, parity_tokenizers

HOME = Path(__file__).parent
STORED = HOME / "parity.json"  # of `read`
CASES = HOME / "cases"  # folders that others made: input.jsonl, model/, expected.json
TEMPLATES = HOME / "parity" / "templates"
Row = dict[str, Any]

LONG = "The quick brown fox jumps over the lazy dog. " * 6  # more tokens than model_max_length
TEXTS = (
    "It is 4.",
    "naïve cafe\u0301 — 東京 2024年 😀, don't!",
    "  two spaces before, and behind  ",
    "one\n\n two\r\n\tthree\n",
    LONG,
)
PAIRS = (
    ("What is 2+2?", "It is 4."),
    ("The quick bro", "wn fox jumps"),  # one token of both
    ("Name a colour: ", "blue, perhaps"),
    ("Say it.\n", "\n  東京 😀"),
    ("今天怎么样？", " 很好！ "),
    ("Tell me about foxes", LONG),
)
SYSTEM = (
    ("system", "Be brief."),
    ("user", "What is 2+2?"),
    ("assistant", "It is 4."),
)
TURNS = (
    ("user", " Name a colour"),
    ("assistant", "blue, perhaps "),
    ("user", "another\n\none"),
    ("assistant", "the quick 東京"),
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "add", "description": "Adds <two> numbers & 'more'.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
}  # fmt: skip
_CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "zwölf"}}}
TOOLED: tuple[Row, ...] = (
    {
        "tools": [_TOOL],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 2+2?"},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is 4.", "reasoning_content": "two\nand two"},
        ],
    },
    {
        "messages": [
            {"role": "user", "content": "Name a colour"},
            {"role": "assistant", "content": "blue", "reasoning_content": "left out later"},
            {"role": "user", "content": "another"},
            {"role": "assistant", "content": "brown", "reasoning_content": "\nkept\n"},
        ],
    },
)


class Case(NamedTuple):
    """One model folder.

    pad: config.json's pad_token_id: "own", that of the tokenizer; of another special token ("eos", "unk"), "null", or
      "absent".
    placed: where the template stands: chat_template.jinja ("file"), as text in tokenizer_config.json ("config"), there
      as the default one of a list ("list"), or in the file while another one stands there ("both").
    extra: rows beside those of every case.
    stored: dtype of the weights.
    """

    family: str
    head: str
    tokenizer: str
    template: str = ""
    pad: str = "own"
    placed: str = "file"
    extra: tuple[Row, ...] = ()
    config: Mapping[str, Any] = {}
    stored: str = "float32"

    @property
    def changes(self) -> dict[str, Any]:
        """What tokenizer_config.json says of the template."""
        if not self.template or self.placed == "file":
            return {}
        source = template(self.template)
        if self.placed != "list":
            return {"chat_template": source if self.placed == "config" else "{{ 'not this one' }}"}
        named = {"rag": "{{ 'not this one' }}", "default": source, "tool_use": "{{ 'for tools' }}"}
        return {"chat_template": [{"name": n, "template": text} for n, text in named.items()]}


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text("utf-8").removesuffix("\n")


def write(case: Case, folder: Path, seed: int = 0) -> dict[str, int]:
    """Writes a Hugging Face folder; returns the ids of special tokens by their role.

    folder: made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = parity_tokenizers.write(case.tokenizer, folder, **case.changes)
    if case.template and case.placed in ("file", "both"):
        (folder / "chat_template.jinja").write_text(template(case.template), encoding="utf-8")
    pads = {"own": ids.get("pad"), "null": None, "absent": "absent"}
    named = {"pad_token_id": pads[case.pad] if case.pad in pads else ids[case.pad]}
    if case.family not in parity_models.ENCODERS:
        named |= {f"{role}_token_id": ids.get(role) for role in ("bos", "eos")}
    made = parity_models.config(case.family, case.head, **named | dict(case.config))
    (folder / "config.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    save_file(
        {name: array.astype(case.stored) for name, array in weights(case, seed).items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return ids


def weights(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    return {a.name: a.draw(seed) for a in parity_models.arrays(case.family, case.head)}


def checksum(case: Case) -> float:
    """Tells whether numpy still draws the numbers that the scores were computed with."""
    return float(sum(np.abs(array.astype(np.float64)).sum() for array in weights(case).values()))


def rows(case: Case) -> list[Row]:
    """Lines of JSON that are scored: {"text"}, {"prompt", "completion"}, {"messages"}, with "tools" where there are."""
    spelled = parity_tokenizers.spelled(case.tokenizer)
    end, pad = spelled.get("eos", "[SEP]"), spelled.get("pad")
    texts = [*TEXTS, f"yes {end}no{end} <s> maybe", f"It is 4.{end}{end}"]
    if pad and case.family not in parity_models.ENCODERS:
        texts.append(f"It {pad} is 4.{pad} {pad}")
    found = [{"text": text} for text in texts]
    found += [{"prompt": prompt, "completion": text} for prompt, text in PAIRS]
    if case.template:
        spoken = [TURNS, (("user", f"Say {end}!"), ("assistant", f"{end}no"))]
        spoken += [SYSTEM] * (case.template != "mistral")  # which refuses it
        found += [
            {"messages": [{"role": role, "content": text} for role, text in turns]}
            for turns in spoken
        ]
    return [*found, *case.extra]


def read() -> dict[str, Any]:
    """{"versions", "models": {name: {"weights", "batched", "rows": [{"ids", "types", "logits"}]}}, "cases": rows}."""
    return json.loads(STORED.read_text("utf-8"))


_BERT: tuple[Row, ...] = (
    {"prompt": "What is 2+2?", "completion": ""},
    {"text": "It [PAD] is [UNK] 4."},  # attended to as others are
)
_PADS: tuple[Row, ...] = ({"text": "It <pad>is 4.<pad>"}, {"text": "<pad>It is 4."})
MODELS: Mapping[str, Case] = {
    # BERT: token types where the tokenizer's class gives them.
    "bert_scalar": Case("bert", "scalar", "bert", extra=_BERT),
    "bert_two_fast": Case("bert", "two", "bert_fast"),
    "bert_three_fast_typed": Case("bert", "three", "bert_fast_typed"),
    "bert_stars_unnamed": Case("bert", "stars", "bert_unnamed"),
    "bert_attributes_cased": Case("bert", "attributes", "bert_cased"),
    "bert_several_untyped": Case("bert", "several", "bert_untyped"),
    "bert_tokens": Case("bert", "tokens", "bert"),
    # RoBERTa: positions are counted from the tokens that are no pads, in a text too.
    "roberta_scalar": Case("roberta", "scalar", "roberta"),
    "roberta_two": Case("roberta", "two", "roberta_fast"),
    "roberta_three": Case("roberta", "three", "roberta"),
    "roberta_attributes": Case("roberta", "attributes", "roberta"),
    "roberta_several": Case("roberta", "several", "roberta"),
    "roberta_tokens": Case("roberta", "tokens", "roberta"),
    "roberta_pads_in_text": Case("roberta", "scalar_regression", "roberta", extra=_PADS),
    # MPNet: BERT's words between RoBERTa's separators; positions as RoBERTa's, and a bias by distance.
    "mpnet_scalar": Case("mpnet", "scalar", "mpnet"),
    "mpnet_two": Case("mpnet", "two", "mpnet_fast"),
    "mpnet_attributes": Case("mpnet", "attributes", "mpnet"),
    "mpnet_tokens": Case("mpnet", "tokens", "mpnet"),
    # GPT-2: nothing around a text, and no pad.
    "gpt2_scalar": Case("gpt2", "scalar", "gpt2", pad="null"),
    "gpt2_pad_absent": Case("gpt2", "scalar", "gpt2_spaced", pad="absent"),
    "gpt2_pad_is_eos": Case("gpt2", "scalar", "gpt2_pad_is_eos"),
    "gpt2_pad_only_in_config": Case("gpt2", "scalar_regression", "gpt2", pad="eos"),
    "gpt2_two": Case("gpt2", "two", "gpt2", pad="null"),
    "gpt2_three_ended": Case("gpt2", "three", "gpt2_pad_is_eos", "ended"),
    "gpt2_attributes": Case("gpt2", "attributes", "gpt2_pad_is_eos", "plain"),
    "gpt2_several": Case("gpt2", "several", "gpt2_pad_is_eos"),
    "gpt2_tokens": Case("gpt2", "tokens", "gpt2_pad_is_eos"),
    # LLaMA 3: a beginning from the tokenizer, or from the template, never both.
    "llama_scalar": Case("llama", "scalar", "llama3"),
    "llama_template": Case("llama", "scalar", "llama3", "llama3"),
    "llama_template_pad_is_eos": Case("llama", "scalar", "llama3_pad_is_eos", "llama3"),
    "llama_pad_null": Case("llama", "scalar", "llama3_unpadded", "llama3", pad="null"),
    "llama_pad_absent": Case("llama", "scalar", "llama3", pad="absent"),
    "llama_pad_of_config": Case("llama", "scalar", "llama3", pad="eos"),
    "llama_eos_list": Case(
        "llama", "scalar", "llama3_pad_is_eos", "llama3", placed="config",
        config={"eos_token_id": [381, 384]},
    ),
    "llama_pad_minus_one": Case("llama", "scalar", "llama3", config={"pad_token_id": -1}),
    "llama_ends": Case("llama", "scalar", "llama3_ends"),
    "llama_ends_pad_is_eos": Case("llama", "scalar", "llama3_ends_pad_is_eos"),
    "llama_told_to_end": Case("llama", "scalar", "llama3_told_to_end", pad="null"),
    "llama_told_not_to_begin": Case("llama", "scalar", "llama3_told_not_to_begin"),
    "llama_num_labels": Case(
        "llama", "scalar", "llama3",
        config={"id2label": "absent", "label2id": "absent", "num_labels": 1},
    ),
    "llama_float16": Case("llama", "scalar_regression", "llama3", stored="float16"),
    "llama_two": Case("llama", "two", "llama3"),
    "llama_three": Case("llama", "three", "llama3", "llama3"),
    "llama_stars": Case("llama", "stars", "llama3_pad_is_eos", "llama3"),
    "llama_attributes": Case("llama", "attributes", "llama3", "llama3"),
    "llama_several": Case("llama", "several", "llama3"),
    "llama_tokens": Case("llama", "tokens", "llama3"),
    "llama_tokens_pad_is_eos": Case("llama", "tokens", "llama3_pad_is_eos", "llama3"),
    # LLaMA 2: SentencePiece's spaces.
    "llama_legacy_ended": Case("llama", "scalar", "legacy_pad_is_eos", "ended"),
    "llama_legacy_zephyr": Case("llama", "scalar", "legacy", "zephyr"),
    "llama_legacy_named": Case("llama", "scalar", "legacy_named", "ended", pad="null"),
    "llama_legacy_named_legacy": Case("llama", "scalar", "legacy_named_legacy", "ended", pad="unk"),
    "llama_legacy_objects": Case("llama", "scalar", "legacy_objects", "ended"),
    "llama_legacy_map": Case("llama", "scalar", "legacy_map", "ended"),
    "llama_legacy_defaults": Case("llama", "scalar", "legacy_defaults", "ended", pad="null"),
    "llama_metaspace_first": Case("llama", "scalar", "metaspace_first", "ended"),
    "llama_metaspace_always": Case("llama", "scalar", "metaspace_always", "zephyr"),
    "llama_metaspace_never": Case("llama", "two", "metaspace_never", "ended"),
    "mistral_scalar": Case("mistral", "scalar", "legacy"),
    "mistral_template": Case("mistral", "scalar", "legacy", "mistral"),
    "mistral_zephyr": Case("mistral", "scalar", "legacy_pad_is_eos", "zephyr", placed="list"),
    "mistral_named": Case("mistral", "two", "legacy_named", "mistral", pad="null"),
    "mistral_three": Case("mistral", "three", "metaspace_first"),
    "mistral_attributes": Case("mistral", "attributes", "legacy", "mistral"),
    "mistral_several": Case("mistral", "several", "metaspace_first", "mistral"),
    "mistral_tokens": Case("mistral", "tokens", "legacy"),
    # Qwen: no beginning, a pad that is not the end.
    "qwen2_scalar": Case("qwen2", "scalar", "qwen", "chatml"),
    "qwen2_plain": Case("qwen2", "scalar", "qwen"),
    "qwen2_system": Case("qwen2", "two", "qwen", "chatml_system", placed="config"),
    "qwen2_generation": Case("qwen2", "scalar_regression", "qwen", "generation"),
    "qwen2_three": Case("qwen2", "three", "qwen", "chatml"),
    "qwen2_attributes": Case("qwen2", "attributes", "qwen"),
    "qwen2_several": Case("qwen2", "several", "qwen", "chatml", placed="both"),
    "qwen2_tokens": Case("qwen2", "tokens", "qwen", "chatml"),
    "qwen2_named_elsewhere": Case("qwen2", "scalar", "llama3_pad_is_eos", "llama3"),
    "qwen2_windows": Case("qwen2", "scalar", "qwen", config={"use_sliding_window": True}),
    "qwen3_scalar": Case("qwen3", "scalar", "qwen"),
    "qwen3_tools": Case("qwen3", "scalar", "qwen", "tools", extra=TOOLED),
    "qwen3_two": Case("qwen3", "two", "qwen", "chatml", pad="absent"),
    "qwen3_three": Case("qwen3", "three", "qwen", "chatml"),
    "qwen3_attributes": Case("qwen3", "attributes", "qwen", "tools"),
    "qwen3_several": Case("qwen3", "several", "qwen"),
    "qwen3_tokens": Case("qwen3", "tokens", "qwen", "chatml"),
    "gemma3_scalar": Case("gemma3_text", "scalar", "gemma"),
    "gemma3_template": Case("gemma3_text", "scalar", "gemma", "gemma"),
    "gemma3_pad_absent": Case("gemma3_text", "two", "gemma", "gemma", pad="absent"),
    "gemma3_three": Case("gemma3_text", "three", "gemma", "gemma"),
    "gemma3_attributes": Case("gemma3_text", "attributes", "gemma"),
    "gemma3_several": Case("gemma3_text", "several", "gemma", "gemma"),
    # T5: the last </s>, wherever it stands.
    "t5_scalar": Case("t5", "scalar", "t5"),
    "t5_two": Case("t5", "two", "t5_fast"),
    "t5_three": Case("t5", "three", "t5"),
    "t5_gated_scalar": Case("t5_gated", "scalar", "t5"),
    "t5_gated_attributes": Case("t5_gated", "attributes", "t5"),
    "t5_gated_several": Case("t5_gated", "several", "t5"),
}  # fmt: skip
