"""Text to token ids, by a tokenizer.json or by bytes, and the one rule of truncation; special tokens survive it."""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from rmjax.data.chat import PLAIN
from rmjax.errors import UserError

PADDING = ("[PAD]", "<pad>", "<|pad|>")  # tokens that are for nothing else
_ESCAPED = re.compile(f"((?:{PLAIN}.)+)", re.DOTALL)


class Group(NamedTuple):
    """A prompt and its completions as ids int32; prompt + a completion is a whole text, special tokens included."""

    prompt: np.ndarray
    completions: list[np.ndarray]


class Tokenizer:
    """A tokenizer.json without its own padding and truncation; special tokens written in a text are text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        """Takes over the object and changes its settings."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # "[CLS]" in a text is text: at most one real one
        self._tokenizer = tokenizer
        ids = [tokenizer.token_to_id(t) for t in PADDING]
        self.pad_id: int = next(
            (i for i in ids if i is not None), 0
        )  # read by nobody: scores come from lengths
        self.vocab_size: int = tokenizer.get_vocab_size()

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        """Reads a tokenizer.json.

        Raises: UserError naming the file.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
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
        """The same, but a text alone is read as a prompt: nothing ends it, and a language model goes on from there."""
        if not len(self._frames[False][2]):  # nothing ends a text
            return self
        before, between, after = ([self.token(int(i)) for i in ids] for ids in self._frames[True])
        made = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        made.post_processor = processors.TemplateProcessing(  # pyright: ignore
            single=[*before, "$A", *between],
            pair=[*before, "$A", *between, "$B", *after],
            special_tokens=[(t, made.token_to_id(t)) for t in {*before, *between, *after}],  # pyright: ignore
        )
        return Tokenizer(made)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids, without special tokens."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

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

    def encode(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """Token ids int32 of each text, its end cut so that special tokens included it has <= max_length."""
        return self.encode_pairs([""] * len(texts), texts, max_length)[0]

    def encode_pairs(
        self, prompts: Sequence[str], completions: Sequence[str], max_length: int
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of prompt and completion together, and how many completions had to be cut; see `truncate`.

        An empty prompt leaves the completion a text of its own.
        """
        groups, cut = self.encode_groups(prompts, [[c] for c in completions], max_length)
        return [np.concatenate([g.prompt, *g.completions]) for g in groups], cut

    def encode_groups(
        self,
        prompts: Sequence[str],
        completions: Sequence[Sequence[str]],
        max_length: int,
        rendered: bool = False,
    ) -> tuple[list[Group], int]:
        """Each prompt once with all its completions, and how many of these had to be cut; see `truncate`.

        rendered: these are texts of `chat.render` with a template: special tokens that it spells are special, and
          none are added, for the text holds those that it needs; a first one outlives truncation.
          Else special tokens written in a text are text, and those of the tokenizer.json are added: around prompt and
          completion as a pair, or, where it adds none behind a text, once before the prompt.
        """
        heads = self._encode(prompts, rendered)
        tails = iter(self._encode([c for listed in completions for c in listed], rendered))
        found, cut = [], 0
        for head, listed in zip(heads, completions, strict=True):
            before, between, after = self._frame(rendered, paired=len(head.ids) > 0)
            if rendered and len(before):
                opened = np.array_equal(head.ids[: len(before)], before)
                before = before if opened else before[:0]
                head = head.without(len(before))
            room = max(max_length - len(before) - len(between) - len(after), 0)
            prompt, answers, more = truncate(
                head.ids, [next(tails).ids for _ in listed], room, self._boundaries(head)
            )
            cut += more
            answers = [np.concatenate([answer, after]) for answer in answers]
            found.append(Group(np.concatenate([before, prompt, between]), answers))
        return found, cut

    def _encode(self, texts: Sequence[str], rendered: bool) -> list["_Text"]:
        """Escaped parts of a rendered text, and all of any other, hold no special tokens."""
        parts = [_ESCAPED.split(text) if rendered else ["", text] for text in texts]
        bare = lambda part: part[1::2] if rendered else part
        steering = iter(_batch(self._steered, [p for listed in parts for p in listed[::2]]))
        plain = iter(_batch(self._tokenizer, [bare(p) for listed in parts for p in listed[1::2]]))
        return [
            _joined(
                [
                    (bare(p), next(plain)) if i % 2 else (p, next(steering))
                    for i, p in enumerate(listed)
                ]
            )
            for listed in parts
        ]

    @functools.cached_property
    def _steered(self) -> tokenizers.Tokenizer:
        """The same tokenizer, to which special tokens in a text are special."""
        made = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        made.encode_special_tokens = False
        return made

    def _frame(self, rendered: bool, paired: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Special tokens before a prompt, between it and a completion, and after that."""
        before, between, after = self._frames[paired]
        if rendered or not len(after):  # a decoder's token of beginning stands once
            between = between[:0]
        return before, between, after[:0] if rendered else after

    @functools.cached_property
    def _frames(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Special tokens around a text alone, and around a pair."""
        found = []
        for paired in (False, True):
            one, two = _batch(self._tokenizer, ["a", "a"])
            whole = self._tokenizer.post_process(one, two if paired else None, True)
            ids = np.array(whole.ids, np.int32)
            own = np.flatnonzero(np.array(whole.special_tokens_mask) == 0)
            last = own[len(own) // 2 - 1] if paired else own[-1]
            second = own[len(own) // 2] if paired else own[-1] + 1
            between = ids[last + 1 : second] if paired else ids[:0]
            found.append((ids[: own[0]], between, ids[own[-1] + 1 :]))
        return found

    def _boundaries(self, text: "_Text") -> np.ndarray:
        """Indices of the tokens that open a line, or that steer after one that does: where a turn begins."""
        steers = np.isin(text.ids, list(self.special))
        lines = np.cumsum([0, *(character == "\n" for character in text.text)])
        start, end = text.spans[1:, 0], text.spans[:-1, 1]
        broken = lines[start] > lines[np.maximum(end - 1, 0)]
        return np.flatnonzero(broken | (steers[1:] & steers[:-1])) + 1


def truncate(
    prompt: np.ndarray, completions: Sequence[np.ndarray], max_length: int, boundaries: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """One prompt [P] for all its completions, so that with the longest it has at most max_length tokens.

    The prompt loses its front: up to the first of the ascending `boundaries` that lies within the first quarter of
    what fits, else up to what fits. A completion that does not fit alone loses its end.
    Returns: prompt, completions, and how many of these were cut.
    """
    kept = [c[:max_length] for c in completions]
    room = max_length - max(map(len, kept), default=0)
    first = max(len(prompt) - room, 0)
    if first:
        near = boundaries[(boundaries >= first) & (boundaries <= first + room // 4)]
        first = near[0] if len(near) else first
    return prompt[first:], kept, sum(len(c) > max_length for c in completions)


class _Text(NamedTuple):
    """A text, its token ids [T] and where each token begins and ends in it [T, 2]."""

    text: str
    ids: np.ndarray
    spans: np.ndarray

    def without(self, count: int) -> "_Text":
        """The same text without its first tokens."""
        return _Text(self.text, self.ids[count:], self.spans[count:])


def _joined(parts: Sequence[tuple[str, tokenizers.Encoding]]) -> _Text:
    ids, spans, text = [], [], ""
    for part, encoding in parts:
        ids.append(np.array(encoding.ids, np.int32))
        spans.append(np.array(encoding.offsets, np.int64).reshape(-1, 2) + len(text))
        text += part
    return _Text(text, np.concatenate(ids), np.concatenate(spans))


def _batch(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> list[tokenizers.Encoding]:
    return tokenizer.encode_batch(texts, add_special_tokens=False)
