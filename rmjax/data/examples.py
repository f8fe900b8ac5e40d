"""From records to token ids, and to the groups of texts that share a row with the pairs they form.

Which pairs exist depends on (seed, epoch) alone, never on packing.
Legend: N texts, M scored places (one a text; one a step of a process), K texts in a group, Q pairs of a group,
V distinct ratings, C classes.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from rmjax.errors import UserError

PAIR_ARRAYS = ("margins", "target", "tie")


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts as token ids, what is known of each, and the rule that groups them.

    ids: of each text's record [N].
    weight: of each text [N]; a pair of rated texts weighs their product.
    kin: [N]: texts may be grouped with those of the same number (of one domain, or answers to one prompt).
    per_text: arrays [M] or [M, C] that losses may name: rating, and label, shares, probability on a scale.
    votes: shares of the panel's ratings [N, V], ascending in the rating; None where unknown.
    given: {"margins", "target": [N / 2]} where texts 2i and 2i + 1 are a given pair, chosen first; else None.
    fixed: groups that the data name (answers to one prompt); None: groups are drawn.
    ends: places in each text where a score is read; None: its last token.
    second: where the second of two segments begins in each text [N], whose tokens have type 1; None: all have type 0.
    share: rows keep what the texts of a group begin with alike once; exact in causal models only.
    starts: the first token of each text that a language model is to predict [N], 1 or later; None: no such texts.
    aims: places of all tokens of each text that it is to predict, ascending from `starts`; None: it is all that follow.
    per_token: arrays of all tokens to predict, text after text, that losses may name.
    encoder_tokens: what an encoder reads of each text, alike in a group that shares; `tokens` are then the decoder's.
    encoder_ratio: how many tokens of the encoder a row has room for to each of the decoder, as `encoder_ratio` gives.
    """

    tokens: Sequence[np.ndarray]
    ids: Sequence[str]
    weight: np.ndarray
    kin: np.ndarray
    per_text: Mapping[str, np.ndarray]
    votes: np.ndarray | None = None
    given: Mapping[str, np.ndarray] | None = None
    fixed: Sequence[np.ndarray] | None = None
    ends: Sequence[np.ndarray] | None = None
    second: np.ndarray | None = None
    share: bool = False
    starts: np.ndarray | None = None
    aims: Sequence[np.ndarray] | None = None
    per_token: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    encoder_tokens: Sequence[np.ndarray] | None = None
    encoder_ratio: float = 1.0

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text [N]."""
        return np.array([len(t) for t in self.tokens], np.int64)

    @functools.cached_property
    def first_place(self) -> np.ndarray:
        """Where each text's scored places begin among all [N + 1]."""
        counts = [1] * len(self.tokens) if self.ends is None else [len(e) for e in self.ends]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @functools.cached_property
    def first_target(self) -> np.ndarray:
        """Where each text's tokens to predict begin among all [N + 1]."""
        counts = np.zeros(len(self.tokens)) if self.starts is None else self.lengths - self.starts
        counts = counts if self.aims is None else [len(a) for a in self.aims]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def targets(self, text: int) -> np.ndarray:
        """Places of the tokens of a text that a language model is to predict."""
        assert self.starts is not None
        own = np.arange(self.starts[text], self.lengths[text])
        return own if self.aims is None else self.aims[text]

    def target_count(self, group: np.ndarray) -> int:
        """How many tokens of a group are to be predicted."""
        return int(np.sum(self.first_target[group + 1] - self.first_target[group]))

    def places(self, group: np.ndarray) -> int:
        """How many scores are read of a group."""
        return int(np.sum(self.first_place[group + 1] - self.first_place[group]))

    def prefix(self, group: np.ndarray) -> int:
        """How many tokens a row keeps once for the whole group; each text keeps one of its own at least, its scored
        places, and all that a language model is to predict."""
        if not self.share:
            return 0
        found = shared_prefix([self.tokens[i] for i in group])
        if self.ends is not None:
            found = min(found, *(int(self.ends[i][0]) for i in group))
        return found if self.starts is None else min(found, int(self.starts[group].min()))

    def length(self, group: np.ndarray) -> int:
        """Tokens of a row that a group takes; where an encoder reads too, so many that its part has room as well."""
        own, read = self.counts(group)
        return max(own, math.ceil(read / self.encoder_ratio))

    def counts(self, group: np.ndarray) -> tuple[int, int]:
        """A group's tokens in a row, and those of them that an encoder reads apart from the others."""
        shared = self.prefix(group)
        own = int(self.lengths[group].sum()) - (len(group) - 1) * shared
        if self.encoder_tokens is None:
            return own, 0
        return own, sum(len(self.encoder_tokens[i]) for i in (group[:1] if shared else group))

    def encoder_room(self, row_length: int) -> int:
        """Tokens that the encoder reads in a row of so many tokens; 0 where there is no encoder."""
        return 0 if self.encoder_tokens is None else int(row_length * self.encoder_ratio)

    def groups(self, rng: np.random.Generator, size: int) -> list[np.ndarray]:
        """Indices of the texts of each group, in random order: those the data name, or up to `size` of one kin."""
        if self.fixed is not None:
            return [self.fixed[i] for i in rng.permutation(len(self.fixed))]
        order, found = np.argsort(self.kin, kind="stable"), []
        for members in np.split(order, np.flatnonzero(np.diff(self.kin[order])) + 1):
            members = rng.permutation(members)
            found += [members[i : i + size] for i in range(0, len(members), size)]
        return [found[i] for i in rng.permutation(len(found))]

    def rating(self, group: np.ndarray) -> np.ndarray:
        """The rating of each text of a group [K]; of a given pair 1 and 0."""
        if self.given is not None:
            return np.array([1.0, 0.0], np.float32)
        return self.per_text["rating"][self.first_place[group]]

    def pairs(self, group: np.ndarray, offer: Sequence[str]) -> dict[str, np.ndarray]:
        """The pairs of one group: `chosen`, `rejected` (places in the group), `pair_weight`, `offer`; each [Q]."""
        if self.given is not None:
            pair = group[:1] // 2
            known = {name: self.given[name][pair] for name in offer}
            place = {"chosen": np.array([0]), "rejected": np.array([1])}
            return {**place, "pair_weight": self.weight[group[:1]], **known}
        votes = None if self.votes is None else self.votes[group]
        found = all_pairs(self.rating(group), votes, offer)
        weight = self.weight[group]
        found["pair_weight"] = (
            found["pair_weight"] * weight[found["chosen"]] * weight[found["rejected"]]
        )
        return found


def singles(tokens: Sequence[np.ndarray]) -> Examples:
    """Texts to score, of which nothing else is known."""
    return Examples(tokens, [], np.ones(len(tokens), np.float32), np.zeros(len(tokens)), {})


def encoder_ratio(encoder: int, decoder: int) -> float:
    """About encoder / decoder: the power of two from 1/8 to 8 that is nearest, so that few shapes serve all texts."""
    return float(2.0 ** np.clip(np.round(np.log2(encoder / decoder)), -3, 3))


def shared_prefix(texts: Sequence[np.ndarray]) -> int:
    """How many tokens all texts begin with alike, less than the shortest has; 0 of a single text."""
    if len(texts) < 2:
        return 0
    shortest = min(map(len, texts)) - 1
    differ = np.any([t[:shortest] != texts[0][:shortest] for t in texts[1:]], axis=0)
    return int(np.argmax(differ)) if differ.any() else shortest


def all_pairs(
    rating: np.ndarray, votes: np.ndarray | None, offer: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Every unordered pair of unequal ratings once, the higher-rated first, each weighing 1 / their number.

    rating: [K]. votes: shares of the panel's ratings [K, V], ascending in the rating.
    offer: of "margins" (by how much the ratings differ), "target" (P(a > b) + P(a = b) / 2 over all cross
      pairs of raters) and "tie" (1 for pairs of equal ratings, which are formed only then).

    Source: Ouyang et al. 2022 (arXiv:2203.02155) section 3.5: K texts cost K forward passes.
    """
    first, second = np.triu_indices(len(rating), 1)
    swap = rating[first] < rating[second]
    chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
    tie = rating[chosen] == rating[rejected]
    if "tie" not in offer:
        chosen, rejected, tie = chosen[~tie], rejected[~tie], tie[~tie]
    found = {
        "chosen": chosen,
        "rejected": rejected,
        "pair_weight": np.full(len(chosen), 1 / max(len(chosen), 1)),
    }
    if "tie" in offer:
        found["tie"] = tie
    if "margins" in offer:
        found["margins"] = rating[chosen] - rating[rejected]
    if "target" in offer:
        assert votes is not None  # `from_rated` is the only maker and `check_offer` the gate
        below = np.cumsum(votes, axis=1) - votes / 2  # P(b < v) + P(b = v) / 2
        found["target"] = np.sum(votes[chosen] * below[rejected], axis=1)
    return found


def shares(panels: Sequence[Sequence[float] | np.ndarray], classes: np.ndarray) -> np.ndarray:
    """The share of each text's ratings [N] that each of the ascending `classes` [C] has: [N, C]."""
    counts = np.zeros((len(panels), len(classes)), np.float32)
    text = np.repeat(np.arange(len(panels)), [len(p) for p in panels])
    np.add.at(counts, (text, np.searchsorted(classes, np.concatenate(panels))), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def check_offer(examples: Examples, offer: Sequence[str]) -> None:
    """Raises: UserError if an array of `offer` is unknown or these data do not have it."""
    for name in offer:
        if name not in PAIR_ARRAYS:
            raise UserError(
                f"config key 'pair_arrays': {name!r} is none of {', '.join(PAIR_ARRAYS)}"
            )
        if examples.given is not None and name not in examples.given:
            field = {"margins": "margin", "target": "votes", "tie": "votes"}[name]
            raise UserError(
                f"config key 'pair_arrays': {name!r} is of the field {field!r}, which not every pair of the data has"
            )
        if examples.given is None and name == "target" and examples.votes is None:
            raise UserError(
                "config key 'pair_arrays': 'target' needs every rater's own rating (`ratings`)"
            )
