"""Samples, and texts of the data set beside them, as one packed batch; and arrays of samples to their places in it.

Legend: B prompts, K samples of each, N = B K texts, C new tokens, R rows, L tokens to predict and P texts in a row.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmjax.data import language, pipeline
from rmjax.data.examples import Examples
from rmjax.sampling.generate import Samples


class Prompts(NamedTuple):
    """What a rollout starts from: token ids of each prompt, its number in the data, its text, the data's own answer.

    leads: what a completion of each begins with before its own text, as of `language.Opened`; (): nothing.
    answers: these once more, [B, 1, C], where they are candidates beside the policy's samples.
    """

    ids: list[np.ndarray]
    number: np.ndarray
    texts: list[str]
    references: list[str]
    leads: Sequence[str] = ()
    answers: Samples | None = None

    def take(self, which: np.ndarray) -> "Prompts":
        """Those at the places `which`."""
        pick = lambda values: [values[int(i)] for i in which]
        answers = self.answers and Samples(*(x[which] for x in self.answers))
        return Prompts(
            pick(self.ids),
            self.number[which],
            pick(self.texts),
            pick(self.references),
            pick(self.leads) if self.leads else (),
            answers,
        )


class Texts(NamedTuple):
    """What a reward may read of N completions, K of each prompt one after the other."""

    prompts: list[str]
    completions: list[str]
    references: list[str]
    stopped: np.ndarray


class Bounds(NamedTuple):
    """The static bounds of a run's rollouts.

    prompts: B. row_length: that of one prompt with all its samples, or of the longest text of the data set.
    places: texts in a row, group_size: K. data_rows: rows that hold texts of the data set, behind those of samples.
    multiple: rows of an update are a multiple of it. epochs, minibatches: how a rollout is learned from.
    encoder_ratio: as of `Examples`, where an encoder reads the prompts; 0: none does.
    """

    prompts: int
    row_length: int
    places: int
    group_size: int
    data_rows: int
    multiple: int
    epochs: int
    minibatches: int
    pad_id: int
    encoder_ratio: float = 0.0


def as_texts(samples: Samples, prompts: Prompts, reads: language.Reads) -> Texts:
    """Samples as text, K of each prompt one after the other."""
    count = samples.tokens.shape[1]
    tokens = samples.tokens.reshape(-1, samples.tokens.shape[2])
    repeat = lambda values: [v for v in values for _ in range(count)]
    leads = prompts.leads or [""] * len(prompts.ids)
    kept = zip(tokens, samples.lengths.ravel(), repeat(prompts.ids), repeat(leads), strict=True)
    return Texts(
        repeat(prompts.texts),
        [language.completion(row[:n], prompt, lead, reads) for row, n, prompt, lead in kept],
        repeat(prompts.references),
        np.asarray(samples.stopped).ravel(),
    )


def merged(parts: Sequence[Texts]) -> Texts:
    """The texts of all parts, one part after the other."""
    flat = lambda lists: list(itertools.chain(*lists))
    prompts, completions, references, stopped = zip(*parts, strict=True)
    return Texts(flat(prompts), flat(completions), flat(references), np.concatenate(stopped))


def as_examples(samples: Samples, prompts: Prompts, encoder_ratio: float = 0.0) -> Examples:
    """Each sample behind its prompt, the K of a prompt a group; token_weight 1 and data_weight 0.

    encoder_ratio: as of `Bounds`.
    """
    b, k, _ = samples.tokens.shape
    lengths = samples.lengths.ravel()
    heads, read = prompts.ids, {}
    if encoder_ratio:
        heads = [language.BEGIN] * b
        encoder_tokens = [prompts.ids[i // k] for i in range(b * k)]
        read = {"encoder_tokens": encoder_tokens, "encoder_ratio": encoder_ratio}
    tokens = [
        np.concatenate([heads[i // k], row[:n]]).astype(np.int32)
        for i, (row, n) in enumerate(zip(samples.tokens.reshape(b * k, -1), lengths, strict=True))
    ]
    one = np.ones(int(lengths.sum()), np.float32)
    return Examples(
        tokens=tokens,
        ids=[str(prompts.number[i // k]) for i in range(b * k)],
        weight=np.ones(b * k, np.float32),
        kin=np.repeat(np.arange(b), k),
        per_text={"record": np.arange(b * k, dtype=np.int32)},
        fixed=list(np.arange(b * k).reshape(b, k)),
        share=k > 1,
        starts=np.repeat([len(p) for p in heads], k).astype(np.int64),
        per_token={"token_weight": one, "data_weight": 0 * one},
        **read,
    )


def joined(samples: Examples, data: Examples | None) -> Examples:
    """Samples and texts of the data set in one batch: the latter count for `mle` alone."""
    if data is None:
        return samples
    first, words = len(samples.tokens), int(data.first_target[-1])
    zero = np.zeros(words, np.float32)
    both = lambda a, b: np.concatenate([a, b])
    assert samples.fixed is not None and samples.starts is not None and data.starts is not None
    read = None
    if samples.encoder_tokens is not None:
        assert data.encoder_tokens is not None
        read = [*samples.encoder_tokens, *data.encoder_tokens]
    return dataclasses.replace(
        samples,
        tokens=[*samples.tokens, *data.tokens],
        ids=[*samples.ids, *data.ids],
        weight=both(samples.weight, np.zeros(len(data.tokens), np.float32)),
        kin=both(samples.kin, data.kin),
        per_text={"record": both(samples.per_text["record"], data.per_text["record"])},
        fixed=[*samples.fixed, *(np.array([first + i]) for i in range(len(data.tokens)))],
        starts=both(samples.starts, data.starts),
        per_token={
            "token_weight": both(samples.per_token["token_weight"], zero),
            "data_weight": both(samples.per_token["data_weight"], data.per_token["data_weight"]),
        },
        encoder_tokens=read,
    )


def chosen(examples: Examples, texts: np.ndarray) -> Examples:
    """The texts at these places alone."""
    assert examples.starts is not None
    words = np.concatenate([np.arange(*examples.first_target[[i, i + 1]]) for i in texts])
    read = examples.encoder_tokens
    return dataclasses.replace(
        examples,
        tokens=[examples.tokens[i] for i in texts],
        ids=[examples.ids[i] for i in texts],
        weight=examples.weight[texts],
        kin=examples.kin[texts],
        per_text={name: x[texts] for name, x in examples.per_text.items()},
        fixed=list(np.arange(len(texts))[:, None]),
        starts=examples.starts[texts],
        per_token={name: x[words] for name, x in examples.per_token.items()},
        encoder_tokens=None if read is None else [read[i] for i in texts],
    )


def lay(examples: Examples, prompts: int, bounds: Bounds) -> dict[str, np.ndarray]:
    """One batch of all groups: the first `prompts` are samples, in as few rows as they need, the others data."""
    assert examples.fixed is not None
    lengths = np.array([examples.length(g) for g in examples.fixed])
    # No row holds more texts than there are places.
    least = -(-bounds.row_length * bounds.group_size // bounds.places)
    own = np.maximum(lengths[:prompts], least)
    rest = np.maximum(lengths[prompts:], -(-bounds.row_length // bounds.places))
    where = pipeline.pack(own[None], bounds.row_length)[0]
    rows = quantized(int(where.max()) + 1, bounds)
    if len(rest):
        where = np.concatenate([where, rows + pipeline.pack(rest[None], bounds.row_length)[0]])
    rows, length = rows + bounds.data_rows, bounds.row_length
    shape = pipeline.Shape(
        rows, length, bounds.places, 0, bounds.places, bounds.group_size, 0, length
    )
    return pipeline.assemble(
        examples, examples.fixed, shape, (), lists=True, pad_id=bounds.pad_id, where=where
    )


def distinct(batch: Mapping[str, np.ndarray], samples: Examples) -> np.ndarray:
    """The batch's group_mask [R, G, K] without what repeats an earlier one of its group. samples: of `as_examples`."""
    assert samples.fixed is not None
    repeated = np.zeros(len(samples.tokens), bool)
    for group in samples.fixed:
        said = [samples.tokens[i].tobytes() for i in group]
        repeated[group] = [text in said[:k] for k, text in enumerate(said)]
    items, shape = batch["group_items"].reshape(len(batch["tokens"]), -1), batch["group_mask"].shape
    of = lambda name: np.take_along_axis(batch[name], items, axis=1).reshape(shape)
    own = of("text_weight") > 0
    return batch["group_mask"] & ~(own & repeated[np.where(own, of("record"), 0)])


def quantized(rows: int, bounds: Bounds) -> int:
    """A number of rows that is at least `rows`, one of few, so that few programs are compiled."""
    step = -(-bounds.prompts // (4 * bounds.multiple)) * bounds.multiple
    return -(-rows // step) * step


class Places(NamedTuple):
    """Where each sample's tokens lie in a batch: [N, C] to [R, L], and texts [N] to [R, P].

    row, at: int [N, C], 0 where `mask` is not. text_row, text_at: int [N].
    """

    row: np.ndarray
    at: np.ndarray
    mask: np.ndarray
    text_row: np.ndarray
    text_at: np.ndarray
    size: tuple[int, int, int]  # R, L, P

    @classmethod
    def of(cls, batch: Mapping[str, np.ndarray], count: int, length: int) -> "Places":
        """Of the batch of `lay`: its texts of weight above 0 are the `count` samples of up to `length` tokens."""
        text_row, text_at = np.nonzero(batch["text_weight"] > 0)
        number = batch["record"][text_row, text_at]
        order = np.argsort(number)
        text_row, text_at = text_row[order], text_at[order]
        row, at = np.zeros((2, count, length), np.int64)
        mask = np.zeros((count, length), bool)
        for i, (r, p) in enumerate(zip(text_row, text_at, strict=True)):
            found = np.flatnonzero(batch["text_of"][r] == p)
            row[i], at[i, : len(found)], mask[i, : len(found)] = r, found, True
        size = (*batch["text_of"].shape, batch["score_at"].shape[1])
        return cls(row, at, mask, text_row, text_at, size)

    def unpack(self, values: np.ndarray) -> np.ndarray:
        """[R, L] -> [N, C], 0 behind each text."""
        return np.where(self.mask, values[self.row, self.at], 0.0).astype(np.float32)

    def unpacked(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays of tokens [R, L] as [N, C], and "end_values" [R, P] as [N]."""
        of_texts = {k: arrays[k][self.text_row, self.text_at] for k in {"end_values"} & {*arrays}}
        return {
            name: self.unpack(x) for name, x in arrays.items() if name not in of_texts
        } | of_texts

    def packed(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays [N] or [N, C] as a batch holds them: [R, P] or [R, L], 0 elsewhere."""
        return {name: self._pack(np.asarray(x, np.float32)) for name, x in arrays.items()}

    def _pack(self, values: np.ndarray) -> np.ndarray:
        rows, tokens, texts = self.size
        if values.ndim == 1:
            found = np.zeros((rows, texts), np.float32)
            found[self.text_row, self.text_at] = values
            return found
        found = np.zeros((rows, tokens), np.float32)
        found[self.row[self.mask], self.at[self.mask]] = values[self.mask]
        return found


def split(
    batch: Mapping[str, np.ndarray], bounds: Bounds, rng: np.random.Generator
) -> list[Mapping[str, Any]]:
    """The batches of one epoch over a rollout: its rows in random parts of one size.

    Rows of samples are dealt first, then those of the data set, then empty ones: every part has some of a kind where
    there are as many as parts.
    """
    if bounds.minibatches == 1:
        return [batch]
    drawn = rng.permutation(len(batch["tokens"]))  # a multiple of the parts, by `lay`
    has = lambda name: np.any(batch[name][drawn] > 0, axis=1)
    order = drawn[
        np.argsort(np.where(has("token_weight"), 0, 2 - has("data_weight")), kind="stable")
    ]
    parts = [order[i :: bounds.minibatches] for i in range(bounds.minibatches)]
    return [{name: x[part] for name, x in batch.items()} for part in parts]
