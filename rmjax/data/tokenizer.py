"""Text to token ids, by a tokenizer.json or by bytes, and the one rule of truncation; special tokens survive it."""

import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from rmjax.data.chat import PLAIN
from rmjax.errors import UserError

PADDING = ("[PAD]", "<pad>", "<|pad|>")  # tokens that are for nothing else
UNLIMITED = 10**9  # tokens: longer than any text
_ESCAPED = re.compile(f"((?:{PLAIN}.)+)", re.DOTALL)


class Halves(NamedTuple):
    """One text as ids int32, split where its completion begins; prompt + completion is the whole text.

    Special tokens are included. second: where the second segment of a pair begins; None of a single segment.
    """

    prompt: np.ndarray
    completion: np.ndarray
    second: int | None = None

    @property
    def whole(self) -> np.ndarray:
        """The text."""
        return np.concatenate([self.prompt, self.completion])


class Layout(NamedTuple):
    """How a prompt and its completion become one sequence of tokens.

    rendered: both come from `chat.render` with a template, which has written all special tokens; none are added.
    pairs: they are two segments, as encoders read them: tokenized one by one, with the special tokens that
      tokenizer.json puts around and between a pair. Else they are one string, tokenized once.
    apart: as pairs, for an encoder and a decoder that read one each: a prompt with an empty completion is framed alike.
    escaped: special tokens that a text spells are text (in a rendered one those marked by PLAIN). Else they are
      special, as transformers reads them.
    cut_front: a text without a prompt that is too long loses its front; else its end.
    """

    rendered: bool = False
    pairs: bool = False
    apart: bool = False
    escaped: bool = False
    cut_front: bool = False


PLAINLY = Layout()


class Tokenizer:
    """A tokenizer.json without its own padding and truncation."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        """Takes over the object and changes its settings."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        ids = [tokenizer.token_to_id(t) for t in PADDING]
        self.pad_id: int = next(
            (i for i in ids if i is not None), 0
        )  # read by nobody: scores come from lengths
        self.vocab_size: int = tokenizer.get_vocab_size()

    @classmethod
    def from_file(cls, path: Path, change: Callable[[Any], Any] | None = None) -> "Tokenizer":
        """Reads a tokenizer.json. change: makes of its content what is to be read in its place.

        Raises: UserError naming the file.
        """
        try:
            text = path.read_text(encoding="utf-8")
            return cls.from_json(text if change is None else _changed(text, change))
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}; a model folder needs its tokenizer.json"
            ) from error
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """The inverse of `to_json`.

        Raises: UserError if this is no tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:
            raise UserError(f"this is not a tokenizer.json: {error}") from error

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """One token a byte of UTF-8, between <s> and </s>: 256 + 3 tokens, nothing to fetch."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
        made = tokenizers.Tokenizer(models.BPE(vocabulary, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore
        made.decoder = decoders.ByteLevel()  # pyright: ignore
        made.post_processor = processors.TemplateProcessing(  # pyright: ignore
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", 1), ("</s>", 2)],
        )
        made.add_special_tokens(["<pad>", "<s>", "</s>"])  # else `decode` would spell them
        return cls(made)

    @classmethod
    def bpe(cls, texts: Sequence[str], vocab_size: int) -> "Tokenizer":
        """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) learned from `texts`, which always gives the same.

        A text stands between <s> and </s>; a prompt and its completion have nothing between them.
        Raises: ValueError if vocab_size is below the 259 of bytes alone.
        """
        special = ["<pad>", "<s>", "</s>"]
        if vocab_size < 256 + len(special):
            raise ValueError(
                f"a vocabulary needs {256 + len(special)} tokens or more, got {vocab_size}"
            )
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
        made.decoder = decoders.ByteLevel()  # pyright: ignore
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        made.post_processor = processors.TemplateProcessing(  # pyright: ignore
            single="<s> $A </s>",
            pair="<s> $A $B </s>",
            special_tokens=[("<s>", 1), ("</s>", 2)],
        )
        return cls(made)

    def for_prompts(self) -> "Tokenizer":
        """The same, but nothing ends a text alone: it is a prompt, from which a language model goes on."""
        single = self._frame(pairs=False)
        if not len(single.after):
            return self
        before = [self.token(int(i)) for i in single.before]
        made = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        made.post_processor = processors.TemplateProcessing(  # pyright: ignore
            single=[*before, "$A"],
            pair=[*before, "$A", "$B"],
            special_tokens=[(t, made.token_to_id(t)) for t in {*before}],  # pyright: ignore
        )
        return Tokenizer(made)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids, without special tokens."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_behind(self, prompt: np.ndarray, ids: np.ndarray) -> str:
        """The text of token ids that follow a prompt: SentencePiece leaves out the space of a text's first word."""
        before = [int(i) for i in prompt[-1:] if int(i) not in self.special]
        return self.decode([*before, *map(int, ids)])[len(self.decode(before)) :]

    def id_of(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, None if there is none."""
        return self._tokenizer.token_to_id(token)

    def to_json(self) -> str:
        """The whole tokenizer as the text of a tokenizer.json."""
        return json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False)

    def token(self, index: int) -> str | None:
        """The token of an id, as the vocabulary spells it."""
        return self._tokenizer.id_to_token(index)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The tokens that steer a model, as a chat template spells them."""
        return tuple(self.special.values())

    @functools.cached_property
    def special(self) -> dict[int, str]:
        """`special_tokens` by id."""
        added = self._tokenizer.get_added_tokens_decoder().items()
        return {i: token.content for i, token in added if token.special}

    def encode(
        self, texts: Sequence[str], max_length: int, layout: Layout = PLAINLY
    ) -> list[np.ndarray]:
        """Token ids int32 of each text, its end cut so that special tokens included it has <= max_length."""
        found, _ = self.encode_groups([[("", text)] for text in texts], max_length, layout)
        return [halves.whole for (halves,) in found]

    def encode_groups(
        self, groups: Sequence[Sequence[tuple[str, str]]], max_length: int, layout: Layout
    ) -> tuple[list[list[Halves]], int]:
        """Texts given as (prompt, completion), and how many completions had to be cut; see `truncate`.

        A group's prompts are cut alike. A text is tokenized whole: a token that reaches across the border, as a space
        with the word behind it does, belongs to the completion. An empty prompt leaves the completion a text of its
        own. A text that opens with the token of beginning (bos) has no second one, and keeps it when it is cut.
        """
        texts = [_Text.of(p, c, layout) for listed in groups for p, c in listed]
        parts = iter(self._parted(texts, layout))
        found, cut = [], 0
        for listed in groups:
            own = [next(parts) for _ in listed]
            made, more = self._fit(own, max_length, layout)
            found.append(made)
            cut += more
        return found, cut

    def encode_openings(
        self, prompts: Sequence[str], layout: Layout
    ) -> tuple[list[np.ndarray], list[str]]:
        """Token ids of prompts that a completion is to be sampled to, and a lead for each.

        White space at a prompt's end is left out where its token would take in the word behind it, as in training. That
        white space is the prompt's lead: what is sampled begins with it.
        """
        joined = [bool(p) and p[-1].isspace() and not layout.pairs for p in prompts]
        texts = [_Text(p + "a" * probed, len(p)) for p, probed in zip(prompts, joined, strict=True)]
        ids, lead = [], []
        frame = self._frame(pairs=layout.pairs)
        before = frame.before[: 0 if layout.rendered else None]
        between = frame.between[: None if layout.pairs and not layout.rendered else 0]
        for text, parts in zip(texts, self._parted(texts, layout), strict=True):
            own, opened = self._unopened(parts.prompt.ids)
            ids.append(np.concatenate([opened if len(opened) else before, own, between]))
            spans = parts.prompt.spans
            lead.append(text.text[int(spans[-1, 1]) if len(spans) else 0 : text.border])
        return ids, lead

    def encode_lines(
        self, prompts: Sequence[str], lines: Sequence[Sequence[str]], layout: Layout
    ) -> list[tuple[Halves, np.ndarray]]:
        """Each prompt with all its lines as one uncut text, and where each line's last token is in the completion."""
        texts = [[(p, "".join(own))] for p, own in zip(prompts, lines, strict=True)]
        parts = self._parted([_Text.of(p, c, layout) for ((p, c),) in texts], layout)
        made, _ = self.encode_groups(texts, UNLIMITED, layout)
        found = []
        for (halves,), part, prompt, own in zip(made, parts, prompts, lines, strict=True):
            borders = np.cumsum([len(line) for line in own])
            borders += 0 if part.segments else len(prompt)
            reached = np.maximum.accumulate(part.completion.spans[:, 1])
            after = len(self._frame(pairs=part.segments).after)
            shift = len(halves.completion) - after - len(reached)
            found.append((halves, np.searchsorted(reached, borders, side="right") - 1 + shift))
        return found

    def front(self, prompt: np.ndarray, room: int) -> np.ndarray:
        """The last `room` tokens of a prompt, and its first one where that is a special token."""
        if len(prompt) <= room:
            return prompt
        kept = int(int(prompt[0]) in self.special and room > 1)
        return np.concatenate([prompt[:kept], prompt[len(prompt) - room + kept :]])

    def _fit(
        self, texts: Sequence["_Parted"], max_length: int, layout: Layout
    ) -> tuple[list[Halves], int]:
        """The texts of one group, framed and cut."""
        frames = [self._frame(pairs=text.segments) for text in texts]
        if layout.rendered:
            nothing = np.zeros(0, np.int32)
            frames = [_Frame(nothing, nothing, nothing, False)] * len(texts)
        prompts, completions, opened = [], [], frames[0].before[:0]
        for text in texts:
            own, opened = self._unopened(text.prompt.ids)
            prompts.append(own)
            completions.append(text.completion.ids)
            if not len(text.prompt.ids):
                completions[-1], opened = self._unopened(text.completion.ids)
        if len(opened):
            frames = [frame._replace(before=opened) for frame in frames]
        room = max(max_length - max(frame.size for frame in frames), 0)
        turns = self._boundaries(texts[0])
        boundaries = turns[turns >= len(opened)] - len(opened)
        prompts, completions, cut = truncate(
            prompts, completions, room, boundaries, cut_front=layout.cut_front
        )
        made = []
        for text, frame, prompt, completion in zip(
            texts, frames, prompts, completions, strict=True
        ):
            head = np.concatenate([frame.before, prompt, frame.between]).astype(np.int32)
            tail = np.concatenate([completion, frame.after]).astype(np.int32)
            made.append(Halves(head, tail, len(head) if text.segments else None))
        return made, cut

    def _unopened(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids without the token of beginning, and that, or nothing, where they do not open with it."""
        before = self._frame(pairs=False).before
        opens = len(before) > 0 and np.array_equal(ids[: len(before)], before)
        return (ids[len(before) :], before) if opens else (ids, before[:0])

    def _parted(self, texts: Sequence["_Text"], layout: Layout) -> list["_Parted"]:
        """Each text tokenized as one string, or as its two segments, and parted at its border."""
        pieces = [
            piece
            for t in texts
            for piece in ([t.text[: t.border], t.text[t.border :]] if t.segments else [t.text])
        ]
        spelled = layout.escaped and layout.rendered
        escapes = [spelled and PLAIN in piece for piece in pieces]
        # Read in one go but for the rare text that spells a special token where that shall be text.
        usual = [piece for piece, odd in zip(pieces, escapes, strict=True) if not odd]
        reader = self._plain if layout.escaped and not layout.rendered else self._steered
        ready = iter(_batch(reader, usual))
        found = iter(
            [
                self._mixed(piece) if odd else _of(next(ready), piece)
                for piece, odd in zip(pieces, escapes, strict=True)
            ]
        )
        return [
            _Parted(next(found), next(found), True) if t.segments else next(found).parted(t.border)
            for t in texts
        ]

    def _mixed(self, text: str) -> "_Tokens":
        """A rendered text in which what stands behind a PLAIN is text and all other special tokens are special."""
        made, at = [], 0
        for i, part in enumerate(_ESCAPED.split(text)):
            reader, bare = (self._plain, part[1::2]) if i % 2 else (self._steered, part)
            (encoding,) = _batch(reader, [bare])
            own = _of(encoding, bare)
            spans = own.spans * (2 if i % 2 else 1) + at  # a PLAIN stands before each character
            made.append(_Tokens(text, own.ids, spans))
            at += len(part)
        ids, spans = (np.concatenate([x[k] for x in made]) for k in (1, 2))
        return _Tokens(text, ids, spans)

    @functools.cached_property
    def _steered(self) -> tokenizers.Tokenizer:
        """The same tokenizer without frames, to which special tokens in a text are special."""
        return self._reading(special=True)

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without frames, to which special tokens in a text are text."""
        return self._reading(special=False)

    def _reading(self, *, special: bool) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        made.post_processor = None  # pyright: ignore (it would also move offsets)
        made.encode_special_tokens = not special
        return made

    def _frame(self, *, pairs: bool) -> "_Frame":
        """Special tokens around a text, or around a prompt and its completion."""
        return self._frames[pairs]

    @property
    def types(self) -> bool:
        """Whether the second of two segments has token type 1."""
        return self._frame(pairs=True).types

    @functools.cached_property
    def _frames(self) -> tuple["_Frame", "_Frame"]:
        one, two = _batch(self._tokenizer, ["a", "a"])
        single = self._tokenizer.post_process(one, None, True)
        pair = self._tokenizer.post_process(one, two, True)
        return _Frame.around(single, 1), _Frame.around(pair, 2)

    def _boundaries(self, text: "_Parted") -> np.ndarray:
        """Indices of the prompt's tokens that open a line, or that steer after one that does: where a turn begins."""
        ids, spans = text.prompt.ids, text.prompt.spans
        steers = np.isin(ids, list(self.special))
        lines = np.cumsum([0, *(character == "\n" for character in text.prompt.text)])
        start, end = spans[1:, 0], spans[:-1, 1]
        broken = lines[start] > lines[np.maximum(end - 1, 0)]
        return np.flatnonzero(broken | (steers[1:] & steers[:-1])) + 1


def truncate(
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    max_length: int,
    boundaries: np.ndarray,
    *,
    cut_front: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """The prompts of one group [P] each, of the same front, so that with its completion none is over max_length tokens.

    The prompts lose their front: up to the first of the ascending `boundaries` that lies within the first quarter of
    what fits, else up to what fits. A completion that does not fit alone loses its end, or its front with `cut_front`.
    Returns: prompts, completions, and how many of these were cut.
    """
    most = lambda c: c[max(len(c) - max_length, 0) :] if cut_front else c[:max_length]
    kept = [most(c) for c in completions]
    over = [len(p) + len(c) - max_length for p, c in zip(prompts, kept, strict=True)]
    first = max(max(over, default=0), 0)
    if first:
        room = max(map(len, prompts)) - first
        near = boundaries[(boundaries >= first) & (boundaries <= first + room // 4)]
        first = near[0] if len(near) else first
    return [p[first:] for p in prompts], kept, sum(len(c) > max_length for c in completions)


class _Text(NamedTuple):
    """A text, where its completion begins, and whether prompt and completion are two segments."""

    text: str
    border: int
    segments: bool = False

    @classmethod
    def of(cls, prompt: str, completion: str, layout: Layout) -> "_Text":
        """As the layout has them: without one of the two there are no two segments, unless they are read apart."""
        two = layout.pairs and not layout.rendered and prompt != ""
        return cls(prompt + completion, len(prompt), two and (layout.apart or completion != ""))


class _Tokens(NamedTuple):
    """A text, its token ids [T] and where each token begins and ends in it [T, 2]."""

    text: str
    ids: np.ndarray
    spans: np.ndarray

    def parted(self, border: int) -> "_Parted":
        """The tokens that end by the border, and from the first on that does not all others."""
        behind = (self.spans[:, 1] > border) | (self.spans[:, 0] >= border)
        first = int(np.argmax(behind)) if behind.any() else len(self.ids)
        return _Parted(
            _Tokens(self.text, self.ids[:first], self.spans[:first]),
            _Tokens(self.text, self.ids[first:], self.spans[first:]),
            False,
        )


class _Parted(NamedTuple):
    """The two halves of a text; segments: each was tokenized by itself."""

    prompt: _Tokens
    completion: _Tokens
    segments: bool


class _Frame(NamedTuple):
    """Special tokens before a text, between two segments, and after; types: whether the second's are of type 1."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    types: bool

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def around(cls, whole: tokenizers.Encoding, segments: int) -> "_Frame":
        """Of what a tokenizer.json makes of one or two texts of equal length."""
        ids = np.array(whole.ids, np.int32)
        own = np.flatnonzero(np.array(whole.special_tokens_mask) == 0)
        last, second = own[len(own) // segments - 1], own[-len(own) // segments]
        between = ids[last + 1 : second] if segments == 2 else ids[:0]
        return cls(ids[: own[0]], between, ids[own[-1] + 1 :], whole.type_ids[second] == 1)


def _changed(text: str, change: Callable[[Any], Any]) -> str:
    """Raises: UserError if the text is no JSON object."""
    try:
        return json.dumps(change(json.loads(text)), ensure_ascii=False)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"this is not a tokenizer.json: {error}") from error


def _of(encoding: tokenizers.Encoding, text: str) -> _Tokens:
    spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    return _Tokens(text, np.array(encoding.ids, np.int32), spans)


def _batch(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> list[tokenizers.Encoding]:
    return tokenizer.encode_batch(texts, add_special_tokens=False)
