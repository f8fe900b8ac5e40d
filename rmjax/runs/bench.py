"""How fast this machine trains: JSON lines, each beside a matmul measured in the same process."""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rmjax.assembly import reward as assembly
from rmjax.assembly import training
from rmjax.data import pipeline
from rmjax.data.records import Data
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models.transformer import Config
from rmjax.runs import progress, speed

WARM_UP = 2  # steps before the clock starts: one compiles, one fills caches
WIDE = {"width": 768, "layers": 12, "heads": 12, "mlp_width": 3072}  # beside the config's backbone
PAIR_GROUP = 4  # texts drawn together where pairs are measured: 6 pairs for 4 forward passes


def reward(*, config: ConfigDict, dtypes: str = "float32,bfloat16", seconds: float = 10.0) -> list:
    """Measures training steps of the config's backbone, and beside an encoder of one of 12 x 768: packed and padded.

    Args:
      config: file and name; its data, batch size and optimizer are used, such as configs/reward.py:movie.
      dtypes: number types of the products, separated by commas.
      seconds: least time measured in each case, after warm-up.

    Returns: what it prints, one object a line. model_flops_per_second counts 6 x non-embedding parameters x real
      tokens, plus attention within texts; flop_ratio is that over matmul_flops_per_second.
    Raises: UserError on what the user can mend.
    """
    asked = [dtype.strip() for dtype in dtypes.split(",")]
    if set(asked) - set(training.DTYPES):
        raise UserError(f"--dtypes: {dtypes!r} is not of {', '.join(training.DTYPES)}")
    chosen = assembly.plan(config)
    loaded = chosen.records()
    small = chosen.backbone()
    models = [small]
    if small.config.kind == "encoder":
        models.append(small._replace(config=_wide(small.config), weights={}))
    lines = []
    for dtype in asked:
        matmul = speed.matmul_rate(dtype)
        for backbone, case in itertools.product(models, _cases(loaded.kind)):
            line = {
                "model": f"{backbone.config.layers} x {backbone.config.width}",
                "dtype": dtype,
                **case,
                "device": str(jax.devices()[0]),
                **_measure(config, chosen, loaded, backbone, dtype, case, seconds),
                "matmul_flops_per_second": matmul,
                "peak_memory_bytes_so_far": speed.peak_memory(),
            }
            line["flop_ratio"] = line["model_flops_per_second"] / matmul
            print(json.dumps(line), flush=True)
            lines.append(line)
    return lines


def lengths(
    *,
    config: ConfigDict,
    cut_at: str = "64,128,256,512",
    dtype: str = "float32",
    seconds: float = 10.0,
) -> list:
    """Measures packed training steps of the config's backbone on its data, cut at several lengths: the cost of a token.

    Args:
      config: file and name, as of `reward`.
      cut_at: lengths in tokens, separated by commas.
      dtype: number type of the products.
      seconds: least time measured at each, after warm-up.

    Returns: what it prints, one object a length. Where attention is over tiles, a token costs about the same.
    Raises: UserError on what the user can mend.
    """
    try:
        asked = [int(length) for length in cut_at.split(",")]
    except ValueError as error:
        raise UserError(f"--cut_at: {cut_at!r} is not whole numbers with commas between") from error
    if dtype not in training.DTYPES:
        raise UserError(f"--dtype: {dtype!r} is none of {', '.join(training.DTYPES)}")
    chosen = assembly.plan(config)
    loaded, backbone, lines = chosen.records(), chosen.backbone(), []
    case = {"trains_on": "texts" if loaded.kind == "texts" else "pairs", "layout": "packed"}
    for length in asked:
        cut: Any = ConfigDict(config.to_dict())
        cut.max_length = length
        found = _measure(cut, chosen, loaded, backbone, dtype, case, seconds)
        line = {
            "cut_at": length,
            "milliseconds_per_token": 1e3 / found["tokens_per_second"],
            **found,
        }
        print(json.dumps(line), flush=True)
        lines.append(line)
    return lines


def _wide(config: Config) -> Config:
    """The same kind of encoder, of the size WIDE."""
    heads, head_width = WIDE["heads"], WIDE["width"] // WIDE["heads"]
    shape = {"kv_heads": heads, "head_width": head_width, "attention_scale": head_width**-0.5}
    return dataclasses.replace(config, **WIDE, **shape, windows=(0,) * WIDE["layers"])


def _cases(kind: str) -> Iterator[dict[str, Any]]:
    """What is trained on and how rows are laid out; given pairs are always pairs."""
    if kind == "texts":
        yield {"trains_on": "texts", "layout": "packed"}
        yield {"trains_on": "texts", "layout": "padded"}
    yield {"trains_on": "pairs", "layout": "packed"}


def _measure(
    config: Any,
    chosen: assembly.Plan,
    loaded: Data,
    backbone: backbones.Backbone,
    dtype: str,
    case: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Throughput over real tokens, host work included as in a run."""
    config = ConfigDict(config)
    config.seeds = 1
    if case["trains_on"] == "pairs" and loaded.kind == "texts":
        config.loss, config.group_size = "bradley_terry()", PAIR_GROUP
        config.batch_size = max(config.batch_size // PAIR_GROUP, 1)
    plan = assembly.plan(config)._replace(backbone=lambda: backbone)
    parts = assembly.assemble(config, plan, loaded, dtype)
    batches = parts.batches[0]
    if case["layout"] == "padded":
        longest = -(-int(batches.examples.lengths.max()) // 8) * 8
        shape = pipeline.Shape(
            config.batch_size, longest, places=1, pairs=0, groups=1, group_size=1, tiles=0
        )
        batches = dataclasses.replace(batches, shape=shape)
    progress.CONSOLE.print(f"{backbone.config.width} wide, {dtype}, {case}, {batches.shape}")
    epochs = (pipeline.iterate(batches, 0) for _ in itertools.count())
    stream = itertools.chain.from_iterable(epochs)

    def advance(state):
        batch = next(stream)
        state, _ = parts.step(state, parts.frozen, parts.layout.put_batch(batch))
        return jax.block_until_ready(state), batch

    began, state, counts = time.perf_counter(), parts.state, []
    for _ in range(WARM_UP):
        state, _ = advance(state)
    start = time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        state, batch = advance(state)
        pairs = (batch["pair_weight"] > 0).sum() if "pair_weight" in batch else 0
        counts.append(((batch["segments"] > 0).sum(), (batch["text_weight"] > 0).sum(), pairs))
    tokens, texts, pairs = (int(n) for n in np.sum(counts, axis=0))
    lengths = batches.examples.lengths
    flops = speed.model_flops(backbone.config, lengths) / lengths.sum()
    return {
        "rows": batches.shape.rows,
        "row_length": batches.shape.row_length,
        "padding": 1 - tokens / (len(counts) * batches.shape.rows * batches.shape.row_length),
        "steps": len(counts),
        "warm_up_seconds": start - began,
        "texts_per_second": texts / took,
        "pairs_per_second": pairs / took,
        "tokens_per_second": tokens / took,
        "model_flops_per_second": tokens * flops / took,
    }
