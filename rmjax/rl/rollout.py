"""The stage before an on-policy step: prompts -> samples -> rewards -> credit -> the batches that losses read.

Legend: B prompts, K samples of each, N = B K texts, C new tokens, R rows, L tokens to predict and P texts in a row.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from rmjax import lookup
from rmjax.data import language, pipeline
from rmjax.data.examples import Examples, encoder_ratio
from rmjax.data.language import Reads
from rmjax.data.records import Record
from rmjax.errors import UserError
from rmjax.evaluation import text
from rmjax.rl import candidates, packing
from rmjax.rl.advantages import Credit
from rmjax.rl.packing import Bounds, Places, Prompts, Texts
from rmjax.sampling import filters
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import Samples
from rmjax.train import loop

# What a reading of samples tells: the last of texts [R, P], the others of tokens [R, L].
MEASURED = ("log_probs", "values", "q", "end_values")


class Functions(NamedTuple):
    """What a rollout does, as functions; params are placed as the layout has them.

    sample(params, prompts, step, K) -> host Samples [B, K, C]. `step` decides the keys.
    reward(Texts) -> float [N].
    measure(params, batch) -> those of MEASURED that there are, without dropout.
    reference(batch) -> {"log_probs"} [R, L] of the reference policy.
    """

    sample: Callable[[Any, Prompts, int, int], Samples]
    reward: Callable[[Texts], np.ndarray]
    measure: Callable[[Any, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    reference: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Drawn(NamedTuple):
    """What a policy wrote to B prompts: N texts, K to each prompt one after the other, in groups of K.

    texts: as people read them. reward(): float32 [N], of whole texts, waited for. log_probs: [N, C], as sampling said.
    lengths: [N], their tokens. stopped: [N], ended by itself. sampled: [N], by the policy; what is not is
    the data's own answer. more: further arrays that `Credit` reads.
    """

    examples: Examples
    texts: list[str]
    reward: Callable[[], np.ndarray]
    log_probs: np.ndarray
    lengths: np.ndarray
    stopped: np.ndarray
    sampled: np.ndarray
    more: Mapping[str, np.ndarray]

    def figures(self) -> dict[str, float]:
        """What the sampled texts are like: length in tokens, repetition, distinct n-grams of words, missing stops."""
        own = np.flatnonzero(self.sampled)
        found = text.figures([self.texts[i].split() for i in own], self.stopped[own])
        return found | {"length": float(np.mean(self.lengths[own]))}


# write(params, prompts, step, K) -> Drawn; `step` decides the keys.
Write = Callable[[Any, Prompts, int, int], Drawn]


class Item(NamedTuple):
    """What a step starts from: its number, its prompts, and texts of the data set where a term reads them."""

    step: int
    prompts: Prompts
    data: Examples | None


class Exploded(Exception):
    """The policy left its reference further than a run allows, or by no finite number of nats."""

    def __init__(self, step: int, kl: float):
        """step: counted from 0. kl: mean nats a text."""
        super().__init__(f"KL of {kl} nats a text at step {step}")
        self.step, self.kl = step, kl


class Plan(NamedTuple):
    """The prompts of a run, and for `mle` the texts of the data set that join each rollout (None: none do)."""

    prompts: Prompts
    data: pipeline.Batches | None
    bounds: Bounds
    seed: int
    epochs: float
    max_prompt: int
    max_new_tokens: int

    @property
    def steps(self) -> int:
        """Rollouts of the run; prompts of an epoch that fill no rollout are left out."""
        return max(round(self.epochs * (len(self.prompts.ids) // self.bounds.prompts)), 1)

    @property
    def updates(self) -> int:
        """Optimizer steps of the run."""
        return self.steps * self.bounds.epochs * self.bounds.minibatches

    def item(self, step: int) -> Item:
        """What step `step` starts from; of (seed, step) alone."""
        per_epoch = len(self.prompts.ids) // self.bounds.prompts
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.prompts.ids))
        own = order[place * self.bounds.prompts : (place + 1) * self.bounds.prompts]
        data = None
        if self.data is not None:
            plans = self.data.plans
            at = step % sum(map(len, plans))
            groups = [batch for plan in plans for batch in plan][at]
            data = packing.chosen(self.data.examples, np.concatenate(groups))
        return Item(step, self.prompts.take(own), data)


def blank(plan: Plan, credit: Credit, critic: Sequence[str]) -> dict[str, np.ndarray]:
    """A batch of the names and shapes that a rollout gives; its samples are padding. critic: what it offers."""
    item, bounds = plan.item(0), plan.bounds
    shape = (bounds.prompts, bounds.group_size, plan.max_new_tokens)
    samples = Samples(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.full(shape[:2], shape[2], np.int32),
        np.zeros(shape[:2], bool),
    )
    made = packing.as_examples(samples, item.prompts, bounds.encoder_ratio)
    examples = packing.joined(made, item.data)
    batch = packing.lay(examples, bounds.prompts, bounds)
    where = Places.of(batch, shape[0] * shape[1], shape[2])
    zeros = np.zeros(where.mask.shape, np.float32)
    names = ("old_log_probs", "reference_log_probs", "sampled_log_probs", *critic)
    known = {"stopped": zeros[:, 0] > 0, **dict.fromkeys(names, zeros)}
    known |= dict.fromkeys(("reward", "end_values"), zeros[:, 0])
    arrays, _, _ = credit(known, where.mask.astype(np.float32), credit.start)
    return batch | where.packed(arrays)


def answering(
    functions: Functions, reads: Reads, *, encoder_ratio: float = 0.0, parts: int = 1
) -> Write:
    """Returns what writes one answer to a prompt, and has it evaluated.

    encoder_ratio: as of `Bounds`.
    parts: in which the prompts are sampled, a divisor of their number. A thread rewards a part while the next is
      sampled, and the last until its rewards are asked for; what comes out depends on neither.
    """
    worker = ThreadPoolExecutor(1)

    def write(params, prompts: Prompts, step: int, count: int) -> Drawn:
        made, said, rewards = [], [], []
        for at in np.split(np.arange(len(prompts.ids)), parts):
            own = prompts.take(at)
            given = [] if own.answers is None else [own.answers]
            drawn = functions.sample(params, own, step, count - len(given))
            made.append(
                Samples(*(np.concatenate(x, axis=1) for x in zip(drawn, *given, strict=True)))
            )
            said.append(packing.as_texts(made[-1], own, reads))
            rewards.append(worker.submit(functions.reward, said[-1]))
        samples, texts = (
            Samples(*map(np.concatenate, zip(*made, strict=True))),
            packing.merged(said),
        )
        return Drawn(
            packing.as_examples(samples, prompts, encoder_ratio),
            texts.completions,
            lambda: np.concatenate([reward.result() for reward in rewards]),
            samples.log_probs.reshape(-1, samples.log_probs.shape[2]),
            samples.lengths.ravel(),
            texts.stopped,
            np.tile(np.arange(count) < count - (prompts.answers is not None), len(prompts.ids)),
            {},
        )

    return write


def prepare(
    functions: Functions,
    credit: Credit,
    bounds: Bounds,
    write: Write,
    *,
    seed: int,
    max_kl: float,
    measured: bool = True,
):
    """Returns prepare(params, carry, item) -> (batches, carry, figures), as `train.loop` takes it.

    write: what a policy does with prompts, such as `answering`.
    carry: of `Credit`: the KL coefficient, a moving baseline, statistics of rewards.
    seed: with item.step it decides all randomness.
    max_kl: nats a text, on average; beyond them `prepare` raises Exploded, before the step.
    measured: whether the policy reads the samples once more, as of `measures`; else what sampling said of them stands.
    """

    def made(params, carry, item: Item):
        drawn = write(params, item.prompts, item.step, bounds.group_size)
        examples = packing.joined(drawn.examples, item.data)
        batch = packing.lay(examples, len(item.prompts.ids), bounds)
        batch["group_mask"] = packing.distinct(batch, drawn.examples)
        where = Places.of(batch, *drawn.log_probs.shape)
        mask, beta = where.mask.astype(np.float32), carry["beta"]
        said = drawn.log_probs * mask
        now = {"log_probs": said}
        if measured:
            now = where.unpacked(functions.measure(params, batch))
        before = where.unpack(functions.reference(batch)["log_probs"])
        reward = drawn.reward()
        known = {
            "reward": reward,
            "stopped": drawn.stopped,
            "sampled": drawn.sampled,
            "old_log_probs": now.pop("log_probs"),
            "sampled_log_probs": said,
            "reference_log_probs": before,
            **now,
            **drawn.more,
        }
        arrays, carry, told = credit(known, mask, carry)
        if not told["rollout/kl"] <= max_kl:
            raise Exploded(item.step, told["rollout/kl"])
        batch = batch | where.packed(arrays)
        told |= {
            "rollout/reward": float(reward[drawn.sampled].mean()),
            # What training says of them is train/log_prob, where a rollout is one update and has no data_answer.
            "rollout/log_prob": float(said[drawn.sampled].sum() / mask[drawn.sampled].sum()),
            **{f"rollout/{k}": v for k, v in drawn.figures().items()},
        }
        if measured:
            drift = np.abs(known["old_log_probs"] - said)[drawn.sampled]
            told["rollout/sampler_difference"] = float(drift.max())
        rng = np.random.default_rng([seed, 2, item.step])

        def renewed(params) -> list[Mapping[str, np.ndarray]]:
            """The parts of a further epoch, credit being that of the policy as it is then."""
            now = where.unpacked(functions.measure(params, batch))
            again = credit.tokens({**known, "reward": arrays["reward"], **now}, mask, beta)
            return packing.split(batch | where.packed(again), bounds, rng)

        learned: list[loop.Part] = [*packing.split(batch, bounds, rng)]
        anew = credit.again and "values" in known
        for _ in range(1, bounds.epochs):
            learned += [renewed] if anew else packing.split(batch, bounds, rng)
        return learned, carry, told

    return made


def measures(config: Any, read: Collection[str], critic: Collection[str]) -> bool:
    """Whether the policy must read its samples once more before the step.

    It must for a ratio, which is to be 1 exactly at first; for a critic; and for answers that it did not draw. Else
    what sampling said of them is as good, and of members of a population there is nothing better.
    read: the arrays that losses read. critic: what it offers.
    """
    return lookup.off(config.evolution, key="evolution") and bool(
        {"old_log_probs", "old_sequence_log_probs"} & {*read} or critic or config.data_answer
    )


def plan(
    config: Any,
    records: Sequence[Record],
    reads: Reads,
    batches: pipeline.Batches,
    *,
    mixed: bool,
    ways: int,
) -> tuple[Plan, list[str]]:
    """The rollouts of a config, and notes on what was cut.

    records: whose prompts are answered. batches: of the data set; mixed: whether its texts join each rollout.
    ways: devices that rows are split over.
    Raises: UserError where there are fewer prompts than a rollout has.
    """
    c = config
    prompts, notes = prompts_of(records, reads, c.max_prompt)
    if c.data_answer:
        answers, more = candidates.of_data(records, reads, c.max_new_tokens)
        prompts, notes = prompts._replace(answers=answers), [*notes, *more]
    if c.batch_size > len(prompts.ids):
        raise UserError(
            f"config key 'batch_size': {c.batch_size} prompts of {len(prompts.ids)} there are"
        )
    if c.rollout_parts < 1 or c.batch_size % (c.rollout_parts * ways):
        raise UserError(
            f"config key 'rollout_parts': batch_size={c.batch_size} prompts have no {c.rollout_parts} equal parts on "
            f"each of {ways} devices"
        )
    multiple = ways * c.microbatches * c.minibatches
    shared, ratio = _room(c, reads, c.samples)
    if ratio:  # rows hold samples and texts of the data set alike
        examples = dataclasses.replace(batches.examples, encoder_ratio=ratio)
        batches = dataclasses.replace(batches, examples=examples)
    longest = 0
    if mixed:
        texts = np.arange(len(batches.examples.tokens))[:, None]
        longest = max(map(batches.examples.length, texts))
    row_length = -(-max(shared, longest) // 8) * 8
    places = max(4 * c.samples, row_length // 8)
    most = 0
    if mixed:
        filled = [
            pipeline.pack(
                np.maximum([[batches.examples.length(g) for g in b]], -(-row_length // places)),
                row_length,
            )
            for plan in batches.plans
            for b in plan
        ]
        most = -(-(max(int(p.max()) for p in filled) + 1) // multiple) * multiple
    bounds = Bounds(
        c.batch_size,
        row_length,
        places,
        c.samples,
        most,
        multiple,
        c.rollout_epochs,
        c.minibatches,
        reads.reader.tokenizer.pad_id,
        ratio,
    )
    return Plan(
        prompts,
        batches if mixed else None,
        bounds,
        c.seed,
        c.epochs,
        c.max_prompt,
        c.max_new_tokens,
    ), notes


def prompts_of(
    records: Sequence[Record], reads: Reads, max_prompt: int
) -> tuple[Prompts, list[str]]:
    """The prompts of records with the answers that the data have to them, and notes on what was cut."""
    opened = language.prompts([r.prompt for r in records], reads, max_prompt)
    texts = [language.said(r.prompt) for r in records]
    references = [language.answers(r, compare=False)[0] for r in records]
    numbers = np.arange(len(opened.ids))
    return Prompts(opened.ids, numbers, texts, references, opened.leads), opened.notes


def bounds_of_one(config: Any, reads: Reads, ways: int) -> Bounds:
    """The bounds of batches of one sample a prompt, to be measured and not learned from."""
    room, ratio = _room(config, reads, 1)
    pad_id = reads.reader.tokenizer.pad_id
    return Bounds(config.batch_size, -(-room // 8) * 8, 4, 1, 0, ways, 1, 1, pad_id, ratio)


def _room(config: Any, reads: Reads, samples: int) -> tuple[int, float]:
    """Tokens of a row that a prompt with its samples takes at most, and `encoder_ratio` as of `Bounds`."""
    new = samples * (
        config.max_new_tokens
        if lookup.off(config.environment, key="environment")
        else config.max_length
    )
    if not reads.encoder:
        return config.max_prompt + new, 0.0
    own = len(language.BEGIN) + new
    ratio = encoder_ratio(config.max_prompt, own)
    return max(own, math.ceil(config.max_prompt / ratio)), ratio


def settings(config: Any, reads: Reads) -> Settings:
    """How answers are sampled.

    Raises: UserError on values outside their range, or by which samples would not be the policy's own.
    """
    made = Settings(
        config.max_new_tokens,
        temperature=config.temperature,
        stop_tokens=reads.stop_ids,
        pad_token=reads.reader.tokenizer.pad_id,
    )
    try:
        filters.check(made)
        filters.require_exact(made)
    except ValueError as error:
        raise UserError(f"config keys 'temperature', 'max_new_tokens': {error}") from error
    return made
