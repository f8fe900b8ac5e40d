"""What a policy writes to prompts, and what that is worth: rewards, divergence from the reference, what it is like.

Legend: N prompts, one completion each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.data.examples import Examples
from rmjax.data.records import Record
from rmjax.evaluation import overoptimization, statistics, text
from rmjax.inference import run_folder
from rmjax.models.policy import CRITIC
from rmjax.rl import packing, rollout
from rmjax.rl.parts import Parts
from rmjax.rl.reward_functions import Reward
from rmjax.sampling.generate import Samples, generate, padded
from rmjax.sampling.keys import key_rows
from rmjax.train import forward
from rmjax.train.state import collections


class Written(NamedTuple):
    """Of each prompt's completion: its text, rewards by name, KL in nats, tokens, and whether it stopped."""

    texts: list[str]
    rewards: dict[str, np.ndarray]
    kl: np.ndarray
    lengths: np.ndarray
    stopped: np.ndarray

    def means(self) -> dict[str, float]:
        """The mean of each, and the diversity of all."""
        like = text.figures([t.split() for t in self.texts], self.stopped)
        means = {name: float(x.mean()) for name, x in self.rewards.items()}
        return means | like | {"kl": float(self.kl.mean()), "length": float(self.lengths.mean())}


def drawer(config: Any, parts: Parts) -> Callable[..., Samples]:
    """Returns draw(params, prompts' token ids, keys [B, K, 2], length) -> host Samples, compiled for each shape.

    length: that prompts are padded to.
    """
    settings, layout = rollout.settings(config, parts.reads), parts.layout
    pad_id = parts.reads.reader.tokenizer.pad_id

    def draw(params, frozen, batch):
        every = {**params, **frozen}
        variables = collections({k: x for k, x in every.items() if not k.startswith(CRITIC)})
        keys = jax.random.wrap_key_data(batch["keys"])
        return generate(parts.sampler, variables, batch["tokens"], batch["lengths"], keys, settings)

    drawn = layout.compile_rows(draw)

    def sample(params, ids, keys, length):
        batch = padded(ids, length, pad_id) | {"keys": keys}
        return drawn(params, parts.frozen, layout.put_batch(batch))

    return sample


def functions(config: Any, parts: Parts, reward: Reward) -> rollout.Functions:
    """What a rollout does, compiled for the run's layout."""
    layout, draw = parts.layout, drawer(config, parts)
    run = forward.language(parts.module.apply, temperature=config.temperature)

    def measure(params, frozen, batch):
        offered = run(params, frozen, batch, None)
        return {name: offered[name] for name in rollout.MEASURED if name in offered}

    def predict(params, frozen, batch):
        return {"log_probs": run(params, frozen, batch, None)["log_probs"]}

    measured = layout.compile_rows(measure)
    # Nobody asks the critic of the reference; without one both are the same program.
    referred = measured if parts.module.critic is None else layout.compile_rows(predict)

    def sample(params, prompts, step, count):
        keys = key_rows(config.seed, step, prompts.number, count)
        return draw(params, prompts.ids, keys, config.max_prompt)

    return rollout.Functions(
        sample,
        reward,
        lambda params, batch: measured(params, parts.frozen, layout.put_batch(batch)),
        lambda batch: referred(parts.reference, {}, layout.put_batch(batch)),
    )


def of_population(config: Any, parts: Parts, does: rollout.Functions) -> rollout.Functions:
    """The same, but sample k of a prompt is by member k of the step's population around the parameters.

    All members answer the same prompts with the same keys, so that what differs between them is what they are. They
    answer one after the other in one program: on a CPU that took half as long as all at once, whose decoding loop
    must keep each member that has ended apart from those that have not.
    """
    settings, layout, around = rollout.settings(config, parts.reads), parts.layout, parts.members
    pad_id = parts.reads.reader.tokenizer.pad_id
    assert around is not None

    def draw(params, frozen, batch):
        keys = jax.random.wrap_key_data(batch["keys"])

        def one(own):
            variables = collections({**own, **frozen})
            prompts = batch["tokens"], batch["lengths"]
            made = generate(parts.sampler, variables, *prompts, keys, settings)
            return jax.tree.map(lambda x: x[:, 0], made)

        made = jax.lax.map(one, around(params, batch["generation"][0]))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), made)

    drawn = layout.compile_rows(draw)

    def sample(params, prompts, step, count):
        del count  # the strategy has it
        batch = padded(prompts.ids, config.max_prompt, pad_id)
        batch["keys"] = key_rows(config.seed, step, prompts.number, 1)
        batch["generation"] = np.full(len(prompts.ids), step, np.int32)
        return drawn(params, parts.frozen, layout.put_batch(batch))

    return does._replace(sample=sample)


def write(
    config: Any,
    does: rollout.Functions,
    params: Any,
    prompts: packing.Prompts,
    rewards: Mapping[str, Reward],
    parts: Parts,
) -> Written:
    """One completion of each prompt by the policy `params`, always with the same keys.

    Prompts go in batches of one size, the last filled up with repeated ones. A thread computes the rewards of one while
    the next is sampled.
    """
    size = config.batch_size
    bounds = rollout.bounds_of_one(config, parts.reads, parts.layout.ways)
    texts, found = [], []
    asked = {name: [] for name in rewards}
    with ThreadPoolExecutor(1) as worker:
        for own, real in batched(prompts, size):
            samples = does.sample(params, own, KEYS, 1)
            said = packing.as_texts(samples, own, parts.reads)
            for name, reward in rewards.items():
                asked[name].append(worker.submit(reward, said))
            examples = packing.as_examples(samples, own, bounds.encoder_ratio)
            kl = divergence(does, params, examples, bounds, (size, samples.tokens.shape[2]))
            texts += said.completions[:real]
            found.append(np.stack([kl, samples.lengths[:, 0], samples.stopped[:, 0]])[:, :real])
        values = {
            name: np.concatenate([part.result() for part in own])[: len(texts)]
            for name, own in asked.items()
        }
    kl, lengths, stopped = np.concatenate(found, axis=1)
    return Written(texts, values, kl, lengths, stopped > 0)


def batched(prompts: packing.Prompts, size: int) -> Iterator[tuple[packing.Prompts, int]]:
    """Prompts `size` at a time, the last filled up with repeated ones, and how many are not."""
    for start in range(0, len(prompts.ids), size):
        at = np.arange(start, start + size) % len(prompts.ids)
        yield prompts.take(at), min(size, len(prompts.ids) - start)


def divergence(
    does: rollout.Functions,
    params: Any,
    examples: Examples,
    bounds: packing.Bounds,
    shape: tuple[int, int],
) -> np.ndarray:
    """log p - log p_ref [N], summed over what each text's writer said. shape: N, C."""
    batch = packing.lay(examples, shape[0], bounds)
    where = packing.Places.of(batch, *shape)
    now = where.unpack(does.measure(params, batch)["log_probs"])
    return (now - where.unpack(does.reference(batch)["log_probs"])).sum(1)


KEYS = 2**30  # in place of a step: no rollout of a run has these keys
KEPT, BY_STEP = 8, "samples_by_step.jsonl"  # answers of each validation that are kept, and where


def figures(after: Written, before: Written, documents: list[str]) -> dict[str, dict[str, Any]]:
    """Means of both policies and their paired differences, with 95% intervals over documents.

    The interval of a share (of missing stops, of rewards of 0 and 1) is Wilson's, of another mean a bootstrap's.
    """
    drawn, n = (
        statistics.resample(documents),
        {"n": len(documents), "documents": len(set(documents))},
    )
    shown: Callable = lambda estimate: estimate._asdict() | n
    mean = lambda x: shown(statistics.interval(drawn.mean(np.asarray(x, np.float64))))
    share = lambda x: shown(statistics.interval(drawn.proportion(np.asarray(x, np.float64))))
    made = {}
    for name in after.rewards:
        both = after.rewards[name], before.rewards[name]
        average = share if np.isin(both, (0.0, 1.0)).all() else mean
        made[name], made[f"reference/{name}"] = map(average, both)
        gain = overoptimization.paired_difference(
            after.rewards[name], before.rewards[name], documents
        )
        made[f"gain/{name}"] = shown(gain)
    for who, written in (("", after), ("reference/", before)):
        made[f"{who}kl"] = mean(written.kl)
        made[f"{who}length"] = mean(written.lengths)
        made[f"{who}missing_stop"] = share(~written.stopped)
        words = [t.split() for t in written.texts]
        for order in (1, 2):
            value = text.distinct(words, order)
            value = value if np.isfinite(value) else None  # no answer has so many words
            made[f"{who}distinct_{order}"] = {"value": value, "low": None, "high": None, **n}
    return made


def lines(records: Sequence[Record], after: Written, before: Written) -> list[dict[str, Any]]:
    """Of each prompt what both policies answered, and the rewards, as JSON."""
    return [
        {**own, "reference": first["policy"], "reference_rewards": first["rewards"]}
        for own, first in zip(_answers(records, after), _answers(records, before), strict=True)
    ]


def keep(home: Path, step: int, records: Sequence[Record], written: Written) -> None:
    """Adds some of the answers to samples_by_step.jsonl, behind those of earlier steps.

    What is there of this step or later ones is of a run that was killed and went on from before it: it is left out.
    """
    path, found = home / BY_STEP, _answers(records, written)
    kept = [line for line in run_folder.read_lines(path) if line["step"] < step]
    own = [{"step": step, **found[i]} for i in spaced(len(found), KEPT)]
    run_folder.write_lines(path, [*kept, *own])


def spaced(size: int, count: int) -> list[int]:
    """At most `count` places of `size`, evenly spaced, so that all domains are among them."""
    return np.linspace(0, size - 1, min(count, size)).astype(int).tolist()


def _answers(records: Sequence[Record], written: Written) -> list[dict[str, Any]]:
    return [
        {
            "id": record.id,
            "domain": record.domain,
            "prompt": record.prompt,
            "policy": written.texts[i],
            "rewards": {name: float(x[i]) for name, x in written.rewards.items()},
            "kl": float(written.kl[i]),
        }
        for i, record in enumerate(records)
    ]
