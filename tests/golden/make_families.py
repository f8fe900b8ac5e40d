"""Writes tiny random models of each family with the reference implementation's numbers, by hand:

    pip install -r requirements-reference.txt && python tests/golden/make_families.py [SmolLM2 .gguf file]

families/NAME/{config.json, model.safetensors, golden.npz}, classifiers/NAME likewise, splits.json; with the
file also smollm2.npz, a greedy continuation.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Regex, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

HOME = Path(__file__).parent
SIZES = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 100.0,
}  # fmt: skip
BERT = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 32,
}  # fmt: skip
T5 = {
    "vocab_size": 48, "d_model": 24, "d_ff": 20, "d_kv": 5, "num_layers": 2, "num_heads": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0,
}  # fmt: skip
GEMMA = {
    "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5, "head_dim": 16,
    "query_pre_attn_scalar": 24, "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}  # fmt: skip
FAMILIES = {
    "bert": transformers.BertConfig(**BERT),
    "roberta": transformers.RobertaConfig(**BERT, type_vocab_size=1, pad_token_id=1),
    "mpnet": transformers.MPNetConfig(**BERT, pad_token_id=1),
    "gpt2": transformers.GPT2Config(
        vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=32, n_inner=40
    ),
    "llama": transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(
        **SIZES, sliding_window=5, tie_word_embeddings=False, head_dim=8
    ),
    "qwen2": transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SIZES, tie_word_embeddings=False, head_dim=16),
    "gemma3_text": transformers.Gemma3TextConfig(**SIZES | GEMMA),
    "t5": transformers.T5Config(**T5),
    "t5_gated": transformers.T5Config(
        **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
}
CLASSIFIERS = {"bert": 1, "roberta": 3, "mpnet": 1, "llama": 1, "t5": 2}  # number of outputs


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter, norms and biases too, away from 0 and 1."""
    with torch.no_grad():
        for parameter in model.eval().parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def save(model: torch.nn.Module, folder: Path, tokens: np.ndarray, **found: torch.Tensor) -> None:
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    arrays = {name: value.numpy() for name, value in found.items()}
    np.savez_compressed(folder / "golden.npz", tokens=tokens.astype(np.int32), **arrays)


def write(name: str, config: transformers.PretrainedConfig) -> None:
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    encoder = name in ("bert", "roberta", "mpnet")
    auto = transformers.AutoModel if encoder else transformers.AutoModelForCausalLM
    auto = transformers.AutoModelForSeq2SeqLM if name[:2] == "t5" else auto
    model = auto.from_config(config)
    if name == "t5_gated":  # transformers 5 ties these, which v1.1 has apart
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model = randomized(model)
    tokens = np.random.default_rng(0).integers(3, 48, (2, 23))
    given = {"input_ids": torch.tensor(tokens), "output_hidden_states": True}
    if name[:2] == "t5":
        given["decoder_input_ids"] = torch.tensor(np.pad(tokens, [(0, 0), (1, 0)])[:, :-1])
    with torch.no_grad():
        made = model(**given)
    if encoder:
        save(model, HOME / "families" / name, tokens, hidden=made.last_hidden_state)
        return
    hidden = made.decoder_hidden_states if name[:2] == "t5" else made.hidden_states
    save(model, HOME / "families" / name, tokens, hidden=hidden[-1], logits=made.logits)


def classify(name: str, labels: int) -> None:
    """A sequence classifier's outputs for texts of two lengths, the shorter one padded."""
    torch.manual_seed(1)
    config = copy.deepcopy(FAMILIES[name])
    config.num_hidden_layers = config.num_decoder_layers = 1
    config.num_labels, config.pad_token_id = labels, config.pad_token_id or 0
    model = randomized(transformers.AutoModelForSequenceClassification.from_config(config))
    tokens = np.random.default_rng(1).integers(3, 48, (2, 11))
    tokens[:, -1] = tokens[0, -4] = config.eos_token_id or 2  # which T5 reads
    tokens[0, -3:] = config.pad_token_id
    mask = torch.tensor(np.arange(11) < np.array([[8], [11]])).long()
    with torch.no_grad():
        logits = model(torch.tensor(tokens), attention_mask=mask).logits
    save(model, HOME / "classifiers" / name, tokens, logits=logits)


def continuation(path: Path) -> None:
    found = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**found)
    model = transformers.AutoModelForCausalLM.from_pretrained(**found, dtype=torch.float32).eval()
    text = "The capital of France is Paris. It has 2 million inhabitants, and its"
    tokens = tokenizer(text, return_tensors="pt").input_ids
    made = model.generate(tokens, do_sample=False, max_new_tokens=32, eos_token_id=[])
    np.savez(
        HOME / "smollm2.npz",
        text=text,
        tokens=tokens[0].numpy(),
        continued=made[0, tokens.shape[1] :].numpy(),
    )


TEXTS = (
    "It's 12345 o'clock,\n\n  don't you THINK?! I'LL see",
    "naïve cafe\u0301 — 東京 2024年\r\n\ttab   \n x²  ",
)


def splits() -> None:
    """Where words end before the merges, by tokenizer.ggml.pre, each piece as bytes spell it."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    known = {
        "gpt-2": words,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]),
    }
    for name in ("llama-bpe", "qwen2"):
        split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
        bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        known[name] = pre_tokenizers.Sequence([split, bare])
    found = {
        name: {text: [piece for piece, _ in step.pre_tokenize_str(text)] for text in TEXTS}
        for name, step in known.items()
    }
    (HOME / "splits.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    splits()
    for name, config in FAMILIES.items():
        write(name, config)
    for name, labels in CLASSIFIERS.items():
        classify(name, labels)
    for argument in sys.argv[1:]:
        continuation(Path(argument))
