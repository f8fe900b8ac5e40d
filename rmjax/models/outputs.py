"""What the outputs of a stored classifier are, by its config.json: one score, attributes, labels, classes or steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rmjax.errors import UserError

EXPORTED = "RewardModel"  # the class of modeling_rmjax.py
ORDINAL = "ordinal_labels"  # a key of config.json by which rmjax says that classes ascend


class Outputs(NamedTuple):
    """The outputs of a classifier.

    kind: "score": there is one; "attributes": several numbers; "labels": each is a label that holds or not; "classes":
      one of them holds; "ordinal": the same, in ascending order; "steps": classes of each step, not of whole texts.
    names: of the outputs, in order.
    """

    kind: str
    names: tuple[str, ...]

    @property
    def unnamed(self) -> bool:
        """Whether the names are the LABEL_0, LABEL_1, ... that transformers makes up."""
        return all(name == f"LABEL_{i}" for i, name in enumerate(self.names))

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers that ordinal classes stand for: their names, else 0, 1, ..."""
        try:
            return tuple(float(name) for name in self.names)
        except ValueError:
            return tuple(float(i) for i in range(len(self.names)))


def of_steps(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a model that classifies tokens: a process model."""
    return _architecture(hf).endswith("ForTokenClassification")


def read(hf: Mapping[str, Any], rows: int | None, where: str) -> Outputs | None:
    """The outputs that a config.json says, None of a model without a head.

    rows: of the stored head; None: there is none. where: begins errors.
    Raises: UserError where config and weights do not have the same outputs.
    """
    architecture = _architecture(hf)
    wanted = architecture.endswith(("ForSequenceClassification", "ForTokenClassification"))
    if rows is None:
        if wanted or architecture == EXPORTED:
            raise UserError(
                f"{where}: config.json says {architecture}, but the weights hold no head for it; bring the whole "
                'model, or train a new head with --config.model="pretrained(..., new_head=True)"'
            )
        return None
    names = _names(hf, where)
    if rows != len(names):
        raise UserError(
            f"{where}: the head has {rows} outputs, and config.json says {len(names)} (num_labels, id2label: "
            f"{', '.join(names)}); mend config.json, or bring the model's own weights"
        )
    if of_steps(hf):
        return Outputs("steps", names)
    if len(names) == 1:
        return Outputs("score", names)
    kind = {"regression": "attributes", "multi_label_classification": "labels"}.get(
        str(hf.get("problem_type")), "ordinal" if hf.get(ORDINAL) else "classes"
    )
    return Outputs(kind, names)


def in_order(outputs: Outputs, logits: np.ndarray, classes: tuple[str, ...]) -> np.ndarray | None:
    """Logits [..., C] in the order of a data set's classes; None where these are not the outputs'.

    Outputs without names of their own are taken as they stand.
    """
    if len(classes) != len(outputs.names):
        return None
    if outputs.unnamed:
        return logits
    lower = [name.lower() for name in outputs.names]
    wanted = [name.lower() for name in classes]
    if sorted(lower) != sorted(wanted) or len(set(lower)) < len(lower):
        return None
    return logits[..., [lower.index(name) for name in wanted]]


def _architecture(hf: Mapping[str, Any]) -> str:
    listed = hf.get("architectures") or [""]
    return str(listed[0])


def _names(hf: Mapping[str, Any], where: str) -> tuple[str, ...]:
    named = hf.get("id2label")
    if not named:
        count = hf.get("num_labels", 2)  # as many as transformers has by default
        return tuple(f"LABEL_{i}" for i in range(int(count)))
    places = sorted(named, key=int)
    if [int(place) for place in places] != list(range(len(places))):
        raise UserError(
            f"{where}: config.json numbers its labels {', '.join(map(str, places))} (id2label), not 0, 1, ...; mend it"
        )
    return tuple(str(named[place]) for place in places)
