"""The stage before an on-policy step: prompts -> samples -> rewards -> credit -> the batches that losses read.

Legend: B prompts, K samples of each, N = B K texts, C new tokens, R rows, L tokens to predict and P texts in a row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmjax.build import packed
from rmjax.build.credit import Credit
from rmjax.build.packed import Bounds, Places, Prompts, Texts
from rmjax.data import language, pipeline
from rmjax.data.examples import Examples
from rmjax.data.language import Reads
from rmjax.data.records import Record
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.evaluation import text
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import Samples


class Functions(NamedTuple):
    """What a rollout does, as functions; params are placed as the layout has them.

    sample(params, prompts, step, K) -> host Samples [B, K, C]. `step` decides the keys.
    reward(Texts) -> float [N].
    measure(params, batch) -> {"log_probs", and with a critic "values"} [R, L], without dropout.
    reference(batch) -> {"log_probs"} [R, L] of the reference policy.
    """

    sample: Callable[[Any, Prompts, int, int], Samples]
    reward: Callable[[Texts], np.ndarray]
    measure: Callable[[Any, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    reference: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Drawn(NamedTuple):
    """What a policy wrote to B prompts: N texts, K to each prompt one after the other, in groups of K.

    texts: as people read them. reward: float32 [N], of the whole text. log_probs: [N, C], as sampling said.
    lengths: [N], tokens that were sampled. stopped: [N], ended by itself. more: further arrays that `Credit` reads.
    """

    examples: Examples
    texts: list[str]
    reward: np.ndarray
    log_probs: np.ndarray
    lengths: np.ndarray
    stopped: np.ndarray
    more: Mapping[str, np.ndarray]

    def figures(self) -> dict[str, float]:
        """What the texts are like: length in tokens, repetition, distinct n-grams of words, missing stops."""
        found = text.figures([t.split() for t in self.texts], self.stopped)
        return found | {"length": float(np.mean(self.lengths))}


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
            data = packed.chosen(self.data.examples, np.concatenate(groups))
        return Item(step, self.prompts.take(own), data)


def blank(plan: Plan, credit: Credit, critic: bool) -> dict[str, np.ndarray]:
    """A batch of the names and shapes that a rollout gives; its samples are padding."""
    item, bounds = plan.item(0), plan.bounds
    shape = (bounds.prompts, bounds.group_size, plan.max_new_tokens)
    samples = Samples(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.full(shape[:2], shape[2], np.int32),
        np.zeros(shape[:2], bool),
    )
    examples = packed.joined(packed.as_examples(samples, item.prompts), item.data)
    batch = packed.lay(examples, bounds.prompts, bounds)
    where = Places.of(batch, shape[0] * shape[1], shape[2])
    zeros = np.zeros(where.mask.shape, np.float32)
    known = {"reward": zeros[:, 0], "old_log_probs": zeros, "reference_log_probs": zeros}
    known |= {"values": zeros} if critic else {}
    arrays, _, _ = credit(known, where.mask.astype(np.float32), credit.start)
    return batch | where.packed(arrays)


def answering(functions: Functions, tokenizer: Tokenizer) -> Write:
    """Returns what writes one answer to a prompt, and has it judged."""

    def write(params, prompts: Prompts, step: int, count: int) -> Drawn:
        samples = functions.sample(params, prompts, step, count)
        texts = packed.as_texts(samples, prompts, tokenizer)
        return Drawn(
            packed.as_examples(samples, prompts),
            texts.completions,
            functions.reward(texts),
            samples.log_probs.reshape(-1, samples.log_probs.shape[2]),
            samples.lengths.ravel(),
            texts.stopped,
            {},
        )

    return write


def prepare(
    functions: Functions,
    credit: Credit,
    bounds: Bounds,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_kl: float,
    write: Write | None = None,
):
    """Returns prepare(params, carry, item) -> (batches, carry, figures), as `train.loop` takes it.

    write: what a policy does with prompts; None: it answers them.
    carry: of `Credit`: the price of a nat, a moving baseline. All randomness comes from (seed, item.step).
    max_kl: nats a text, on average; beyond them `prepare` raises Exploded, before the step.
    """

    write = write or answering(functions, tokenizer)

    def made(params, carry, item: Item):
        drawn = write(params, item.prompts, item.step, bounds.group_size)
        examples = packed.joined(drawn.examples, item.data)
        batch = packed.lay(examples, len(item.prompts.ids), bounds)
        where = Places.of(batch, *drawn.log_probs.shape)
        now = functions.measure(params, batch)
        known = {"reward": drawn.reward, "old_log_probs": where.unpack(now["log_probs"])}
        if "values" in now:
            known["values"] = where.unpack(now["values"])
        known["reference_log_probs"] = where.unpack(functions.reference(batch)["log_probs"])
        mask = where.mask.astype(np.float32)
        arrays, carry, told = credit({**known, **drawn.more}, mask, carry)
        if not told["rollout/kl"] <= max_kl:
            raise Exploded(item.step, told["rollout/kl"])
        batch = batch | where.packed(arrays)
        drift = np.abs(known["old_log_probs"] - drawn.log_probs) * mask
        told |= {
            "rollout/reward": float(drawn.reward.mean()),
            "rollout/sampler_difference": float(drift.max()),
            **{f"rollout/{k}": v for k, v in drawn.figures().items()},
        }
        rng = np.random.default_rng([seed, 2, item.step])
        return packed.split(batch, bounds, rng), carry, told

    return made


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
    if c.batch_size > len(prompts.ids):
        raise UserError(
            f"config key 'batch_size': {c.batch_size} prompts of {len(prompts.ids)} there are"
        )
    multiple = ways * c.microbatches * c.minibatches
    shared = c.max_prompt + c.samples * (c.max_length if c.environment else c.max_new_tokens)
    longest = max(map(len, batches.examples.tokens)) if mixed else 0
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
    ids, notes = language.prompts([r.prompt for r in records], reads, max_prompt)
    texts = [language.said(r.prompt) for r in records]
    references = [language.answers(r, compare=False)[0] for r in records]
    return Prompts(ids, np.arange(len(ids)), texts, references), notes


def bounds_of_one(config: Any, pad_id: int, ways: int) -> Bounds:
    """The bounds of batches of one sample a prompt, to be measured and not learned from."""
    row_length = -(-(config.max_prompt + config.max_new_tokens) // 8) * 8
    return Bounds(config.batch_size, row_length, 4, 1, 0, ways, 1, 1, pad_id)


def settings(config: Any, reads: Reads) -> Settings:
    """How answers are sampled.

    Raises: UserError on a temperature that is not positive: nothing would be drawn.
    """
    if not config.temperature > 0:
        raise UserError(f"config key 'temperature': must be positive, got {config.temperature}")
    return Settings(
        config.max_new_tokens,
        temperature=config.temperature,
        stop_tokens=reads.stop_ids,
        pad_token=reads.reader.tokenizer.pad_id,
    )
