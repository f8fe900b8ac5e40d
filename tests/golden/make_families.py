"""Writes tiny random models of each decoder family with the reference implementation's numbers, by hand:

    pip install -r requirements-reference.txt && python tests/golden/make_families.py [SmolLM2 .gguf file]

families/NAME/{config.json, model.safetensors, golden.npz}; with the file also smollm2.npz, a greedy continuation.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

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
FAMILIES = {
    "llama": transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(
        **SIZES, sliding_window=5, tie_word_embeddings=False, head_dim=8
    ),
    "qwen2": transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SIZES, tie_word_embeddings=False, head_dim=16),
}


def write(name: str, config: transformers.PretrainedConfig) -> None:
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens = np.random.default_rng(0).integers(3, 48, (2, 23))
    with torch.no_grad():
        made = model(torch.tensor(tokens), output_hidden_states=True)
    folder = HOME / "families" / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    hidden, logits = made.hidden_states[-1].numpy(), made.logits.numpy()
    np.savez_compressed(
        folder / "golden.npz", tokens=tokens.astype(np.int32), hidden=hidden, logits=logits
    )


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


if __name__ == "__main__":
    for name, config in FAMILIES.items():
        write(name, config)
    for argument in sys.argv[1:]:
        continuation(Path(argument))
