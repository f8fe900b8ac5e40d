"""Text to token ids, by a tokenizer.json or by bytes; special tokens survive truncation."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from rmjax.errors import UserError


class Tokenizer:
    """A tokenizer.json without its own padding and truncation; special tokens written in a text are text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        """Takes over the object and changes its settings."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # "[CLS]" in a text is text: at most one real one
        self._tokenizer = tokenizer
        ids = [tokenizer.token_to_id(t) for t in ("[PAD]", "<pad>", "<|pad|>")]
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
        return cls(made)

    def to_json(self) -> str:
        """The whole tokenizer as the text of a tokenizer.json."""
        return json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False)

    def encode(self, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
        """Token ids int32 of each text, its end cut so that special tokens included it has <= max_length."""
        return self.encode_pairs([""] * len(texts), texts, max_length)[0]

    def encode_pairs(
        self, prompts: Sequence[str], completions: Sequence[str], max_length: int
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of prompt and completion together, and how many completions had to be cut.

        The prompt loses its front first; only a completion that does not fit alone loses its end.
        An empty prompt leaves the completion a text of its own.
        """
        encode = lambda texts: self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        found, cut = [], 0
        for prompt, completion in zip(encode(prompts), encode(completions), strict=True):
            both = len(prompt) > 0
            room = max_length - self._tokenizer.num_special_tokens_to_add(both)
            cut += len(completion) > room
            completion.truncate(room)
            left = room - len(completion)
            if both and left < len(prompt):
                prompt.truncate(left, direction="left")
            first, second = (prompt, completion) if both else (completion, None)
            found.append(_ids(self._tokenizer.post_process(first, second, True)))
        return found, cut


def _ids(encoding: tokenizers.Encoding) -> np.ndarray:
    return np.array(encoding.ids, np.int32)
