"""Completions of prompts as JSON holds them, by a language model from wherever it lies: sampled, or searched for."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rmjax.data import language, streams
from rmjax.data.records import Prompt, Text
from rmjax.data.tokenizer import UNLIMITED, Tokenizer
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models.transformer import LanguageModel
from rmjax.sampling import beam, stops
from rmjax.sampling.continuous import MULTIPLE, Waiting, stream
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import Samples, padded
from rmjax.sampling.keys import key_rows


class Asked(NamedTuple):
    """A prompt, and the JSON line that it came in."""

    row: dict[str, Any]
    prompt: Prompt


# answer(asked) -> each with its completions: "text", "log_prob" in nats, "stopped".
Answer = Callable[[Iterable[Asked]], Iterator[tuple[Asked, list[dict[str, Any]]]]]


class Writer(NamedTuple):
    """A language model and how it reads; stop: a text that ends a completion, "" for none."""

    source: str
    module: LanguageModel
    variables: Any
    reads: language.Reads
    longest: int  # tokens of a prompt
    stop: str

    @property
    def tokenizer(self) -> Tokenizer:
        """Of prompts and completions."""
        return self.reads.reader.tokenizer

    def opened(self, prompts: list[Prompt]) -> language.Opened:
        """Their tokens, the front of longer ones left out."""
        return language.prompts(prompts, self.reads, self.longest)

    def completion(
        self, prompt: tuple[np.ndarray, str], tokens: np.ndarray, log_prob: Any, stopped: Any
    ) -> dict[str, Any]:
        """One completion, of tokens without padding; prompt: its token ids and lead, as of `language.Opened`."""
        text = language.completion(tokens, *prompt, self.reads)
        kept = stops.truncate(text, (self.stop,) if self.stop else ())
        return {
            "text": kept,
            "log_prob": float(log_prob),
            "stopped": bool(stopped) or kept != text,
        }


def load(
    policy: str, *, max_prompt: int, stop: str, plain: bool, special_tokens: str = ""
) -> Writer:
    """The language model of --policy. plain: without its chat template. special_tokens: as of `model.reader`.

    Raises: UserError where there is none, or it has no stop token.
    """
    found = backbones.policy_of(policy)
    reader = backbones.reader(found, max_prompt, special_tokens, share=False)
    if plain:
        reader = reader._replace(template=None)
    reads = backbones.reads(found, reader, f"--policy={policy!r}")
    module, variables = backbones.language_model(found, "float32")
    return Writer(policy, module, variables, reads, max_prompt, stop)


def sampled(
    writer: Writer, settings: Settings, *, samples: int, rows: int, seed: int, exact: bool
) -> Answer:
    """So many samples of each prompt, rows of them at once; `seed` and a prompt's number decide them.

    exact: those alone whose text is read as the tokens that were drawn, so that their log-probability is the text's.
    """
    settings = settings._replace(
        stop_tokens=writer.reads.stop_ids, pad_token=writer.tokenizer.pad_id
    )

    def completions(prompt: Prompt, read: Any, own: Samples) -> Iterator[dict[str, Any]]:
        for k in range(samples):
            tokens = own.tokens[k, : own.lengths[k]]
            if not exact or read_back(tokens, own.stopped[k], prompt, writer.reads):
                yield writer.completion(read, tokens, own.log_probs[k].sum(), own.stopped[k])

    def answer(asked: Iterable[Asked]) -> Iterator[tuple[Asked, list[dict[str, Any]]]]:
        begun = collections.deque[tuple[Asked, Any]]()  # answered in this order

        def waiting() -> Iterator[Waiting]:
            for number, one in enumerate(asked):
                opened = writer.opened([one.prompt])
                begun.append((one, (opened.ids[0], opened.leads[0])))
                keys = key_rows(seed, 0, np.array([number]), samples)[0]
                yield Waiting(opened.ids[0], keys)

        made = stream(
            writer.module,
            writer.variables,
            waiting(),
            settings,
            longest=writer.longest,
            rows=rows,
        )
        try:
            for own in made:
                one, read = begun.popleft()
                yield one, list(completions(one.prompt, read, own))
        except ValueError as error:
            raise UserError(f"--policy={writer.source!r}: {error}") from error

    return answer


def searched(
    writer: Writer, *, max_new_tokens: int, beams: int, kept: int, rows: int, length_penalty: float
) -> Answer:
    """The best `kept` completions of each prompt that a beam search finds, the best first; rows of prompts at once."""

    def search(ids: list[np.ndarray]) -> beam.Beams:
        room = min(-(-max(map(len, ids)) // MULTIPLE) * MULTIPLE, writer.longest)
        ids += ids[:1] * (rows - len(ids))  # one shape for all
        found = beam.search(
            writer.module,
            writer.variables,
            **padded(ids, room, writer.tokenizer.pad_id),
            beams=beams,
            max_new_tokens=max_new_tokens,
            stop_tokens=writer.reads.stop_ids,
            length_penalty=length_penalty,
        )
        return beam.Beams(*map(np.asarray, found))

    def answer(asked: Iterable[Asked]) -> Iterator[tuple[Asked, list[dict[str, Any]]]]:
        for chunk in streams.chunks(iter(asked), rows):
            opened = writer.opened([one.prompt for one in chunk])
            try:
                found = search(opened.ids)
            except ValueError as error:
                raise UserError(f"--policy={writer.source!r}: {error}") from error
            for i, one in enumerate(chunk):
                there = [k for k in range(kept) if np.isfinite(found.scores[i, k])]
                own = [found.tokens[i, k, : found.lengths[i, k]] for k in there]
                read = (opened.ids[i], opened.leads[i])
                yield (
                    one,
                    [
                        writer.completion(read, tokens, found.log_probs[i, k], found.stopped[i, k])
                        for k, tokens in zip(there, own, strict=True)
                    ],
                )

    return answer


def read_back(drawn: np.ndarray, stopped: Any, prompt: Prompt, reads: language.Reads) -> bool:
    """Whether the text of a completion is read as the tokens that were drawn, so that its log-probability is theirs."""
    opened = language.prompts([prompt], reads, UNLIMITED)
    text = language.completion(drawn, opened.ids[0], opened.leads[0], reads)
    record = Text("", "", "", text, prompt, stopped=bool(stopped))
    read = language.encode([record], reads, UNLIMITED).examples
    assert read.starts is not None
    return np.array_equal(read.tokens[0][int(read.starts[0]) :], drawn)
