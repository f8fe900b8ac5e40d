"""What a data set holds, whatever file it came from: texts, rated texts, preference pairs, rankings or processes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

# (role, content), and of a message that has more (tool calls, reasoning) a third: that, as JSON.
Message = tuple[str, ...]
Messages = tuple[Message, ...]
TOOLS = "tools"  # the role of a first message that holds nothing but the tools of a conversation, as its JSON
Prompt = str | Messages  # plain text, or a conversation to be rendered by the model's chat template


@dataclasses.dataclass(frozen=True)
class Text:
    """A text, or an answer to a prompt, that nobody rated: for language models to learn from.

    Of a log also what it earned and how likely it was: the log-probability under the policy that wrote it, at the
    temperature it was drawn at, in nats, summed over its tokens, the stop token among them where it `stopped`.
    """

    id: str
    domain: str
    document: str
    text: str
    prompt: Prompt = ""
    weight: float = 1.0
    reward: float | None = None
    log_prob: float | None = None
    log_probs: tuple[float, ...] = ()  # of each token, where known; their sum is log_prob
    stopped: bool = True  # False: cut by length, so no stop token follows


@dataclasses.dataclass(frozen=True)
class RatedText:
    """A text and what people said of it; `rating` is the mean of `ratings` where there are several."""

    id: str
    domain: str
    document: str  # texts of one document never straddle a split, and intervals resample documents
    text: str
    rating: float
    ratings: tuple[float, ...] = ()  # every rater's own, empty where unknown
    weight: float = 1.0
    prompt: Prompt = ""
    attributes: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one first; the prompt may be empty."""

    id: str
    domain: str
    document: str
    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None  # how much better, in the data's own units
    target: float | None = None  # share of votes for `chosen`, ties counted half
    weight: float = 1.0
    tie: float | None = None  # share of votes for neither


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Completions of one prompt and a rating of each, higher is better; of best-of-K, 1 for the best and 0 else."""

    id: str
    domain: str
    document: str
    prompt: Prompt
    completions: tuple[str, ...]
    ratings: tuple[float, ...]
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Process:
    """A solution in steps, each with a label in [0, 1] at its end."""

    id: str
    domain: str
    document: str
    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    weight: float = 1.0


Record = Text | RatedText | Pair | Ranking | Process


def fingerprint(records: Sequence[Record]) -> str:
    """The sha256 of the records' contents in order, in hex: a changed data set changes it."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(dataclasses.astuple(record), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


KINDS = {
    Text: "plain texts",
    RatedText: "texts",
    Pair: "pairs",
    Ranking: "rankings",
    Process: "processes",
}


class Data(NamedTuple):
    """Records of one kind. `scale`: lowest and highest rating where they are whole numbers and known."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]
    scale: tuple[int, int] | None
    notes: list[str]  # what was left out, and why
    classes: tuple[str, ...] = ()  # the names of ratings 0, 1, ... where texts are classified

    @property
    def kind(self) -> str:
        """What the records are: "plain texts", "texts", "pairs", "rankings" or "processes"."""
        return KINDS[type(self.train[0])]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names that training texts have ratings by, sorted."""
        texts = [r for r in self.train if isinstance(r, RatedText)]
        return tuple(sorted({name for r in texts for name, _ in r.attributes}))
