"""Rows of tokens being filled with packed texts: where each token, scored place and token to predict lies.

Legend: R rows, T tokens, S tokens that an encoder reads in a row, P scored texts in a row, L tokens to predict in a
row.
"""

import dataclasses

import numpy as np

from rmjax.data.examples import Examples

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static bounds of every batch of a run."""

    rows: int
    row_length: int
    places: int  # scored, per row
    pairs: int  # per row, 0 for single texts
    groups: int  # per row
    group_size: int  # texts of the largest group
    tiles: int  # pairs of tiles that see each other, per row; 0: whole rows do
    targets: int = 0  # tokens to predict, per row, where texts are a language model's


@dataclasses.dataclass
class Rows:
    """Rows of tokens being filled, and how many tokens, scored places and segments each holds so far."""

    examples: Examples
    batch: Batch
    used: np.ndarray
    places: np.ndarray
    segments: np.ndarray
    targets: np.ndarray
    read: np.ndarray  # tokens of the encoder

    @classmethod
    def empty(cls, examples: Examples, shape: Shape, pad_id: int) -> "Rows":
        """Nothing but padding."""
        names = ["segments", "positions"] + ["branches"] * examples.share
        names += ["types"] * (examples.second is not None)
        size = (shape.rows, shape.row_length)
        batch = {name: np.zeros(size, np.int32) for name in names}
        batch["tokens"] = np.full(size, pad_id, np.int32)
        batch["score_at"] = np.zeros((shape.rows, shape.places), np.int32)
        if examples.starts is not None:
            size = (shape.rows, shape.targets)
            batch |= {name: np.zeros(size, np.int32) for name in ("target_at", "source_at")}
            batch["text_of"] = np.full(size, shape.places, np.int32)
            batch |= {name: np.zeros(size, x.dtype) for name, x in examples.per_token.items()}
        if examples.encoder_tokens is not None:
            size = (shape.rows, examples.encoder_room(shape.row_length))
            names = ("encoder_segments", "encoder_positions")
            batch |= {name: np.zeros(size, np.int32) for name in names}
            batch["encoder_tokens"] = np.full(size, pad_id, np.int32)
        return cls(examples, batch, *np.zeros((5, shape.rows), np.int64))

    def lay(self, row: int, group: np.ndarray) -> None:
        """Puts a group behind what the row holds: a text each in its own segment, or a prompt with its branches."""
        texts, shared = [self.examples.tokens[i] for i in group], self.examples.prefix(group)
        if shared:
            self.segments[row] += 1
            self._write(row, texts[0][:shared], 0, 0)
        fork = int(self.used[row]) - 1  # the last token that the texts share
        for branch, (index, text) in enumerate(zip(group, texts, strict=True), 1):
            self.segments[row] += not shared
            if self.examples.encoder_tokens is not None and (branch == 1 or not shared):
                self._read(row, self.examples.encoder_tokens[index])
            start = int(self.used[row]) - shared  # where the text would begin
            self._write(row, text[shared:], shared, branch if shared else 0)
            if self.examples.second is not None:
                second = start + int(self.examples.second[index])
                self.batch["types"][row, second : int(self.used[row])] = 1
            ends = self.examples.ends
            ends = np.array([len(text) - 1]) if ends is None else ends[index]
            at = int(self.places[row])
            self.batch["score_at"][row, at : at + len(ends)] = start + ends
            if self.examples.starts is not None:
                self._aim(row, int(index), start, shared, fork)
            self.places[row] += len(ends)

    def _aim(self, row: int, text: int, start: int, shared: int, fork: int) -> None:
        """Lists a text's tokens to predict.

        start: where the text would begin if it stood alone. fork: where the last of its `shared` tokens is.
        """
        own = slice(*self.examples.first_target[[text, text + 1]])
        there = slice(int(self.targets[row]), int(self.targets[row]) + own.stop - own.start)
        at = start + self.examples.targets(text)
        before = np.where(at == start + shared, fork, at - 1) if shared else at - 1
        self.batch["target_at"][row, there], self.batch["source_at"][row, there] = at, before
        self.batch["text_of"][row, there] = self.places[row]
        for name, values in self.examples.per_token.items():
            self.batch[name][row, there] = values[own]
        self.targets[row] = there.stop

    def _write(self, row: int, tokens: np.ndarray, position: int, branch: int) -> None:
        span = slice(int(self.used[row]), int(self.used[row]) + len(tokens))
        self.batch["tokens"][row, span] = tokens
        self.batch["segments"][row, span] = self.segments[row]
        self.batch["positions"][row, span] = position + np.arange(len(tokens))
        if branch:
            self.batch["branches"][row, span] = branch
        self.used[row] = span.stop

    def _read(self, row: int, tokens: np.ndarray) -> None:
        """Puts what the encoder reads of the row's latest segment behind what it reads of the others."""
        span = slice(int(self.read[row]), int(self.read[row]) + len(tokens))
        self.batch["encoder_tokens"][row, span] = tokens
        self.batch["encoder_segments"][row, span] = self.segments[row]
        self.batch["encoder_positions"][row, span] = np.arange(len(tokens))
        self.read[row] = span.stop
