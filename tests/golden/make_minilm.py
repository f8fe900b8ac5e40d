"""Makes tests/golden/minilm.npz: MiniLM's hidden states by the reference implementation, in float32.

By hand: pip install -r requirements-reference.txt, then python tests/golden/make_minilm.py
"""

from pathlib import Path

import numpy as np
import torch
import transformers

from rmjax import assets

TEXTS = (
    "A masterpiece of quiet feeling.",
    "Not bad, but I would not pay $12.50 to see it twice!",
    "ok",
)

folder = assets.folder("minilm")
model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
arrays = {
    "versions": np.array(f"torch {torch.__version__}, transformers {transformers.__version__}")
}
for i, text in enumerate(TEXTS):
    tokens = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0]
    arrays[f"tokens_{i}"] = tokens["input_ids"][0].numpy().astype(np.int32)
    arrays[f"hidden_{i}"] = hidden.numpy()
np.savez_compressed(Path(__file__).with_name("minilm.npz"), **arrays)
