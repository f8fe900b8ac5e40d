"""How fast this machine samples, and how fast it learns from samples: JSON lines."""

import itertools
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rmjax.assembly import policy as assembly
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models import presets
from rmjax.models.policy import Policy
from rmjax.models.transformer import LanguageModel
from rmjax.rl import policy_evaluation, relaxed, reward_functions, rollout
from rmjax.runs import optimize_policy, progress, speed
from rmjax.sampling.continuous import Waiting, stream
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import generate as sample
from rmjax.sampling.generate import sample_keys
from rmjax.sampling.keys import key_rows
from rmjax.train import loop
from rmjax.train.state import unflatten


def generate(
    *,
    policy: str = "small",
    batches: str = "1,8,32",
    prompt_tokens: int = 32,
    new_tokens: int = 64,
    samples: int = 1,
    dtype: str = "float32",
    repeats: int = 5,
) -> list:
    """Measures cached decoding at temperature 1 to full length, prefill included, beside the memory's speed.

    Args:
      policy: "small" (a GPT-2-shaped decoder of 4 x 256 over 8,192 tokens, random weights), or as of `generate`.
      batches: numbers of prompts, separated by commas.
      prompt_tokens: of each prompt.
      new_tokens: drawn for each sample; none stops earlier.
      samples: of each prompt.
      dtype: number type of the products and of the cache.
      repeats: calls after the one that compiles; the median counts.

    Returns: what it prints, one object a batch size. bytes_per_second counts the weights, read once a step;
      memory_ratio is that over copy_bytes_per_second, what a copy reads, measured in the same process.
    Raises: UserError on what the user can mend.
    """
    try:
        sizes = [int(size) for size in batches.split(",")]
    except ValueError as error:
        raise UserError(
            f"--batches: {batches!r} is not whole numbers with commas between"
        ) from error
    module, variables = _model(policy, dtype)
    weights = sum(x.nbytes for x in jax.tree.leaves(variables))
    copied, lines = copy_rate(), []
    for size in sizes:
        vocabulary = module.transformer.config.vocab_size
        tokens = jax.random.randint(jax.random.key(1), (size, prompt_tokens), 0, vocabulary)
        keys = sample_keys(jax.random.key(0), jnp.arange(size), samples)
        lengths, settings = jnp.full(size, prompt_tokens), Settings(new_tokens)
        draw = lambda: jax.block_until_ready(
            sample(module, variables, tokens, lengths, keys, settings)  # noqa: B023
        )
        began = time.perf_counter()
        draw()
        compiled, times = time.perf_counter() - began, []
        for _ in range(repeats):
            start = time.perf_counter()
            draw()
            times.append(time.perf_counter() - start)
        took = float(np.median(times))
        line = {
            "policy": policy,
            "dtype": dtype,
            "batch": size,
            "samples": samples,
            "tokens_per_second": size * samples * new_tokens / took,
            "milliseconds_per_step": 1e3 * took / new_tokens,
            "compile_seconds": compiled,
            "bytes_per_second": weights * new_tokens / took,
            "copy_bytes_per_second": copied,
            "memory_ratio": weights * new_tokens / took / copied,
            "peak_memory_bytes_so_far": speed.peak_memory(),
        }
        print(json.dumps(line), flush=True)
        lines.append(line)
    return lines


def continuous(
    *,
    policy: str = "small",
    batch: int = 8,
    prompts: int = 64,
    prompt_tokens: int = 32,
    new_tokens: int = 256,
    mean_tokens: int = 32,
    dtype: str = "float32",
    repeats: int = 3,
) -> list:
    """Measures answers of very different lengths: batch after batch, and with ended rows replaced by waiting prompts.

    Args:
      policy: as of `bench generate`.
      batch: prompts answered together.
      prompts: in all, a multiple of `batch`.
      prompt_tokens: of each prompt.
      new_tokens: of an answer, at most.
      mean_tokens: of an answer, on average, where all tokens are equally likely: so many of them end one.
      dtype: number type of the products and of the cache.
      repeats: calls after the ones that compile, one way after the other; medians count.

    Returns: what it prints, one object; tokens per second are those of answers, padding not counted.
    Raises: UserError on what the user can mend.
    """
    if prompts % batch:
        raise UserError(f"--prompts: {prompts} is no multiple of --batch={batch}")
    module, variables = _model(policy, dtype)
    vocabulary = module.transformer.config.vocab_size
    settings = Settings(new_tokens, stop_tokens=tuple(range(-(-vocabulary // mean_tokens))))
    ids = np.random.default_rng(1).integers(0, vocabulary, (prompts, prompt_tokens))
    keys = key_rows(0, 0, np.arange(prompts), 1)
    lengths = np.full(batch, prompt_tokens)

    def in_batches() -> list[np.ndarray]:
        parts = zip(np.split(ids, prompts // batch), np.split(keys, prompts // batch), strict=True)
        made = [
            sample(
                module,
                variables,
                own,
                lengths,
                jax.random.wrap_key_data(jnp.asarray(data)),
                settings,
            )
            for own, data in parts
        ]
        return [np.asarray(one.lengths) for one in made]

    def replaced() -> list[np.ndarray]:
        asked = map(Waiting, ids, keys)
        longest = {"longest": prompt_tokens, "rows": batch}
        return [one.lengths for one in stream(module, variables, asked, settings, **longest)]

    ways = {"in_batches": in_batches, "continuous": replaced}
    tokens = {name: int(np.sum(way())) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    speeds = {name: tokens[name] / float(np.median(times[name])) for name in ways}
    line: dict[str, Any] = {
        "policy": policy,
        "dtype": dtype,
        "batch": batch,
        "prompts": prompts,
        "mean_length": tokens["continuous"] / prompts,
        **{f"{name}_tokens_per_second": speed for name, speed in speeds.items()},
        "gain": speeds["continuous"] / speeds["in_batches"],
    }
    print(json.dumps(line), flush=True)
    return [line]


def copy_rate(size: int = 2**28, repeats: int = 5) -> float:
    """Bytes per second that a copy of `size` bytes reads: the best of `repeats`."""
    source = np.ones(size // 4, np.float32)
    target, times = np.empty_like(source), []
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return source.nbytes / min(times)


def rollouts(*, config: ConfigDict, seconds: float = 20.0) -> list:
    """Measures rollouts with their updates on a config of samples: completions a second, and where the time goes.

    Args:
      config: file and name, such as configs/policy.py:sentiment.
      seconds: least time measured, after two rollouts to warm up.

    Returns: what it prints, one object.
    Raises: UserError on what the user can mend.
    """
    c: Any = config
    chosen = assembly.plan(c)
    if not c.samples:
        raise UserError("config key 'samples': must be at least 1 where rollouts are measured")
    loaded = assembly.prompted(chosen, chosen.records())
    found, reads = assembly.backbone(c, chosen, loaded)
    dtype = speed.faster_dtype() if c.dtype == "auto" else c.dtype
    whole, frozen_reward = chosen.words > 0, None
    if chosen.relaxed:
        frozen_reward = relaxed.load(c, reads, loaded.train, whole=whole)
    parts = assembly.assemble(c, chosen, loaded, found, reads, dtype, frozen_reward=frozen_reward)
    reward = reward_functions.make(c, "reward", optimize_policy.prompts_of(loaded), whole=whole)
    assert parts.rollouts is not None
    does = policy_evaluation.functions(
        c, parts, reward or optimize_policy.no_reward
    )  # an environment has its own
    bounds = parts.rollouts.bounds
    prepare = rollout.prepare(
        does,
        chosen.credit,
        bounds,
        optimize_policy.player(c, chosen, parts, does),
        seed=c.seed,
        max_kl=c.max_kl,
        measured=rollout.measures(config, chosen.reads, chosen.critic.offers),
    )
    state, carry, spent, count = parts.state, chosen.credit.start, np.zeros(2), 0
    frozen = {**parts.frozen, **parts.asked}
    progress.CONSOLE.print("compiling")
    for k in itertools.count():
        start = time.perf_counter()
        made, carry, _ = prepare(state.params, carry, parts.rollouts.item(k % parts.rollouts.steps))
        middle = time.perf_counter()
        for part in made:
            for batch in loop.unfolded(part, state.params):
                state, _ = parts.step(state, frozen, parts.layout.put_batch(batch))
        jax.block_until_ready(state)
        if k < 2:
            continue
        spent += (middle - start, time.perf_counter() - middle)
        count += bounds.prompts * bounds.group_size
        if spent.sum() > seconds:
            break
    line: dict[str, Any] = {
        "prompts": bounds.prompts,
        "samples": bounds.group_size,
        "dtype": dtype,
        "completions_per_second": count / spent.sum(),
        "share_of_updates": spent[1] / spent.sum(),
        "peak_memory_bytes_so_far": speed.peak_memory(),
    }
    print(json.dumps(line), flush=True)
    return [line]


def _model(source: str, dtype: str) -> tuple[LanguageModel, dict[str, Any]]:
    if source != "small":
        return backbones.language_model(backbones.policy_of(source), dtype)
    config = presets.decoder(8192, 256, 4, 512)
    transformer = backbones.transformer(config, dtype)
    params = backbones.initialize(Policy(transformer), {}, jax.random.key(0))
    return LanguageModel(transformer), {"params": unflatten(params)}
