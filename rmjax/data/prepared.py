"""TFDS data sets that lie prepared as array_record: their rows, without TensorFlow and without their code."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from rmjax.errors import UserError


def rows(
    name: str, split: str, data_dir: str, renamed: Mapping[str, str]
) -> Iterator[tuple[int, Any]]:
    """Numbers from 1 and rows of a split; bytes as text, classes as their names.

    renamed: {field of the data set: field that `formats` knows}.
    Raises: UserError if there is no such data set, split or field.
    """
    try:
        builder: Any = read_only_builder.builder_from_files(name, data_dir=data_dir or None)
        source: Any = builder.as_data_source(split=split)
    except (
        tfds.core.DatasetNotFoundError,
        AssertionError,
        NotImplementedError,
        ValueError,
    ) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"config key 'data': tfds(name={name!r}, split={split!r}): {reason}; prepare it as array_record, "
            "and say where it lies by data_dir="
        ) from error
    features: Any = builder.info.features or {}
    names = {
        field: feature.names
        for field, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    }
    unknown = sorted(set(renamed) - set(features))
    if unknown:
        there = ", ".join(features)
        raise UserError(f"config key 'data': tfds({name!r}) has no field {unknown}; it has {there}")
    for number, row in enumerate(source.__getitems__(range(len(source))), 1):
        plain = {k: names[k][v] if k in names and v >= 0 else _plain(v) for k, v in row.items()}
        yield number, plain | {new: plain[old] for old, new in renamed.items()}


def _plain(value: Any) -> Any:
    """The value as JSON would hold it."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
