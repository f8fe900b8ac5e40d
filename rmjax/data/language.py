"""Records as what a language model learns: which of their tokens it is to predict, and where each answer stops."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmjax.data.encode import Encoded, Reader, groups, openings, told
from rmjax.data.examples import Examples, encoder_ratio, singles
from rmjax.data.records import Pair, Process, Prompt, Ranking, RatedText, Record, Text
from rmjax.data.tokenizer import UNLIMITED
from rmjax.errors import UserError

BEGIN = np.zeros(1, np.int32)  # what a decoder behind an encoder begins with: `Transformer`'s 0


class Reads(NamedTuple):
    """How a language model reads, and the tokens that end its answers, the usual one first.

    encoder: whether an encoder reads the prompts, so that the decoder has answers alone.
    """

    reader: Reader
    stop_ids: tuple[int, ...]
    encoder: bool = False

    @property
    def whole(self) -> Reader:
        """The reader that cuts nothing; where an encoder reads the prompts, these and the answers are texts apart."""
        layout = self.reader.layout._replace(pairs=self.encoder, apart=self.encoder)
        return self.reader._replace(max_length=UNLIMITED, layout=layout)


def opened(records: Sequence[Record], words: int) -> list[Text]:
    """Texts as continuations of their first `words` words, which become the prompt; shorter texts are left out.

    Raises: UserError if the records are no texts, have prompts, or none is longer.
    """
    found = []
    for record in records:
        if not isinstance(record, Text | RatedText) or record.prompt:
            raise UserError(
                "config key 'prompts': opening() makes prompts of texts that have none; these data have prompts, so "
                "use prompts='none()'"
            )
        parts = record.text.split(" ")
        rest = " ".join(parts[words:])
        if rest.strip():
            found.append(
                Text(
                    record.id,
                    record.domain,
                    record.document,
                    " " + rest,
                    " ".join(parts[:words]),
                    record.weight,
                    record.reward if isinstance(record, Text) else None,
                    stopped=record.stopped if isinstance(record, Text) else True,
                )
            )
    if not found:
        raise UserError(
            f"config key 'prompts': no text has more than {words} words; lower opening(words=...)"
        )
    return found


def said(prompt: Prompt) -> str:
    """A prompt as a text, a conversation as what was said in it."""
    return prompt if isinstance(prompt, str) else "\n".join(message[1] for message in prompt)


def answers(record: Record, *, compare: bool) -> tuple[str, ...]:
    """What a record says to its prompt: the best answer, or with compare all of them, a pair's chosen one first.

    Raises: UserError on a process, whose steps are not one answer.
    """
    match record:
        case Text() | RatedText():
            return (record.text,)
        case Pair():
            return (record.chosen, record.rejected) if compare else (record.chosen,)
        case Ranking():
            return record.completions if compare else (record.completions[_best(record)],)
        case Process():
            raise UserError(
                "config key 'data': solutions in steps are no answers to learn from; give prompt and completion"
            )


def encode(
    records: Sequence[Record], reads: Reads, max_length: int, *, compare: bool = False
) -> Encoded:
    """Examples whose tokens to predict are those of the answers, each with its stop token.

    Texts without a prompt that are longer than max_length are cut into several, so that nothing is lost; a prompt
    loses its front, and an answer that does not fit alone its end (and its stop). Where an encoder reads the prompts,
    max_length is that of prompts and of answers, and there are no texts without one.
    compare: all answers of a record form a group, as preference losses need; `data_weight` is 0 but on the best.
    Where every record is of a log that says so, texts have old_sequence_log_probs: NaN where they are not read whole.
    Raises: UserError where a log has log-probabilities of another number of tokens than its answer has here, or an
      encoder has no prompt to read; and as `answers`.
    """
    if reads.encoder and not all(r.prompt for r in records):
        raise UserError(
            "config key 'prompts': the encoder of this policy reads prompts, and these data have texts without; use "
            "prompts='opening(words=4)', data with prompts, or a decoder alone as policy"
        )
    said = [answers(r, compare=compare) for r in records]
    found, counts = groups(reads.whole, [r.prompt for r in records], said)
    tokens, starts, record_of, learned, members, cut = [], [], [], [], [], 0
    parted = set()  # records that are not read whole
    for i, group in enumerate(found):
        own = []
        for place, halves in enumerate(group):
            answer = _ended(records[i], halves.completion, reads.stop_ids)
            plain = not records[i].prompt and not compare
            prompt = BEGIN if reads.encoder else halves.prompt
            pieces = _fit(prompt, answer, max_length, reads, whole=plain)
            cut += pieces.cut
            parted |= {i} if pieces.cut or len(pieces.parts) > 1 else set()
            for piece, start in pieces.parts:
                own.append(len(tokens))
                tokens.append(piece)
                starts.append(start)
                record_of.append(i)
                learned.append(not compare or place == _best(records[i]))
        members += [np.array(own)] if compare else [np.array([j]) for j in own]
    weight = np.array([records[i].weight for i in record_of], np.float32)
    start = np.array(starts, np.int64)
    lengths = np.array([len(t) for t in tokens]) - start
    counted = np.repeat(weight, lengths)
    per_text = {
        "record": np.array(record_of, np.int32),
        "text": np.arange(len(tokens), dtype=np.int32),
        "desirable": np.array(learned, np.float32),
    }
    if (nats := log_probs(records)) is not None:
        nats[list(parted)] = np.nan
        per_text["old_sequence_log_probs"] = nats[per_text["record"]]
    if compare and isinstance(records[0], Ranking):  # ratings say which pairs there are
        ratings = [r.ratings for r in records if isinstance(r, Ranking)]
        per_text["rating"] = np.concatenate(ratings).astype(np.float32)
    examples = Examples(
        tokens=tokens,
        ids=[records[i].id for i in record_of],
        weight=weight,
        kin=np.array(record_of),
        per_text=per_text,
        given={} if compare and isinstance(records[0], Pair) else None,
        fixed=members,
        share=reads.reader.share and compare,
        starts=start,
        per_token={"token_weight": counted, "data_weight": counted * np.repeat(learned, lengths)},
    )
    if reads.encoder:
        front = reads.reader.tokenizer.front
        examples = _reading(examples, [front(g[0].prompt, max_length) for g in found])
    counts[f"answers cut to {max_length} tokens"] += cut
    return Encoded(examples, counts)


def log_probs(records: Sequence[Record]) -> np.ndarray | None:
    """Of logged answers, under the policies that wrote them: float32 [N]; None unless all records have one."""
    found = [r.log_prob for r in records if isinstance(r, Text) and r.log_prob is not None]
    return np.array(found, np.float32) if len(found) == len(records) else None


def rewards(records: Sequence[Record]) -> np.ndarray | None:
    """What logged answers earned: float32 [N]; None unless all records say so."""
    found = [r.reward for r in records if isinstance(r, Text) and r.reward is not None]
    return np.array(found, np.float32) if len(found) == len(records) else None


def _reading(examples: Examples, prompts: Sequence[np.ndarray]) -> Examples:
    """The examples, and the prompt of each one's record as what an encoder reads."""
    assert examples.fixed is not None
    own = [prompts[i] for i in examples.per_text["record"]]
    once = sum(len(own[group[0]]) for group in examples.fixed)
    ratio = encoder_ratio(once, int(examples.lengths.sum()))
    return dataclasses.replace(examples, encoder_tokens=own, encoder_ratio=ratio)


def mismatched(examples: Examples, texts: np.ndarray, max_length: int) -> Examples:
    """The prompt of each of these texts, of which those of a record stand together, with an answer to the record before
    it, the first with one to the last; cut to max_length."""
    assert examples.starts is not None
    halves = [np.split(examples.tokens[i], [examples.starts[i]]) for i in texts]
    kin = examples.kin[texts]
    first = np.maximum.accumulate(np.where(kin != np.roll(kin, 1), np.arange(len(kin)), 0))
    answers = [halves[i - 1][1] for i in first]
    made = singles(
        [
            np.concatenate([head, a])[:max_length]
            for (head, _), a in zip(halves, answers, strict=True)
        ]
    )
    read = {}
    if examples.encoder_tokens is not None:
        read = {
            "encoder_tokens": [examples.encoder_tokens[i] for i in texts],
            "encoder_ratio": examples.encoder_ratio,
        }
    return dataclasses.replace(made, starts=examples.starts[texts], **read)


class Opened(NamedTuple):
    """Prompts as they stand before a completion.

    ids: token ids of each. leads: what each one's completion begins with before its own text.
    """

    ids: list[np.ndarray]
    leads: list[str]
    notes: list[str]


def prompts(found: Sequence[Prompt], reads: Reads, max_length: int) -> Opened:
    """Prompts to be answered; longer ones lose their front.

    Raises: UserError where a prompt has no token at all.
    """
    made, leads, counts = openings(reads.whole, found)
    counts[f"prompts lost their front, to {max_length} tokens"] += sum(
        len(ids) > max_length for ids in made
    )
    if not all(map(len, made)):
        raise UserError(
            "config key 'prompts': a prompt is empty and the model has no token of beginning; use opening(words=...)"
        )
    front = reads.reader.tokenizer.front
    return Opened([front(ids, max_length) for ids in made], leads, told(counts))


def completion(ids: np.ndarray, prompt: np.ndarray, lead: str, reads: Reads) -> str:
    """The text of a completion, as a record holds it, from the tokens that follow a prompt's."""
    tokenizer = reads.reader.tokenizer
    text = tokenizer.decode(ids) if reads.encoder else tokenizer.decode_behind(prompt, ids)
    return text.removeprefix(lead)


def answer_ids(records: Sequence[Record], reads: Reads) -> list[np.ndarray]:
    """Token ids of each record's best answer behind its prompt, with the stop token."""
    best = [answers(r, compare=False) for r in records]
    found, _ = groups(reads.whole, [r.prompt for r in records], best)
    return [
        _ended(record, halves.completion, reads.stop_ids)
        for record, (halves,) in zip(records, found, strict=True)
    ]


def _best(record: Record) -> int:
    """The place of the best among a record's answers."""
    return int(np.argmax(record.ratings)) if isinstance(record, Ranking) else 0


class _Pieces(NamedTuple):
    """The parts of one text with the first token to predict of each, and how many answers were cut."""

    parts: list[tuple[np.ndarray, int]]
    cut: int


def _fit(
    prompt: np.ndarray, answer: np.ndarray, most: int, reads: Reads, *, whole: bool
) -> _Pieces:
    """whole: the text may be cut into several."""
    text, first = np.concatenate([prompt, answer]), max(len(prompt), 1)
    if len(text) <= most:
        return _Pieces([(text, first)], 0)
    if whole:
        # Each piece repeats a token: the last of one is what the first of the next is predicted from.
        begins = range(0, len(text) - 1, most - 1)
        return _Pieces([(text[b : b + most], first if b == 0 else 1) for b in begins], 0)
    kept = answer[: most - 1]
    head = reads.reader.tokenizer.front(prompt, most - len(kept))
    start = max(len(head), 1)
    return _Pieces([(np.concatenate([head, kept]), start)], int(len(kept) < len(answer)))


def _ended(record: Record, answer: np.ndarray, stop_ids: tuple[int, ...]) -> np.ndarray:
    """An answer and its stop token, without which one of a log was cut by length.

    Raises: UserError as `encode`.
    """
    whole = _stopped(answer, stop_ids)
    if not isinstance(record, Text):
        return whole
    if not record.stopped:
        whole = whole[:-1]
    if record.log_probs and len(record.log_probs) != len(whole):
        raise UserError(
            f"config key 'data': record {record.id!r} has {len(record.log_probs)} log_probs, and its answer "
            f"{len(whole)} tokens here, the stop among them unless stopped is false: a policy with another tokenizer "
            "wrote it, or its tokens are not those of its text; leave it out"
        )
    return whole


def _stopped(answer: np.ndarray, stop_ids: tuple[int, ...]) -> np.ndarray:
    """An answer up to its first stop token, which is added where it has none."""
    ends = np.flatnonzero(np.isin(answer, stop_ids))
    if len(ends):
        return answer[: ends[0] + 1]
    return np.concatenate([answer, np.array(stop_ids[:1], np.int32)])
