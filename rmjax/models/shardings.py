"""Where each parameter lives on a mesh with the axes data, fsdp and tensor.

Tensor parallelism splits attention heads and MLP units (Shoeybi et al. 2019); fsdp splits the other axis.
"""

import re

from jax.sharding import PartitionSpec

RULES = (  # first match counts; block parameters carry their layer axis first
    (r"blocks/attention/(query|key|value)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"blocks/up/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"blocks/attention/(query|key|value)/bias$", PartitionSpec(None, "tensor")),
    (r"blocks/up/bias$", PartitionSpec(None, "tensor")),
    (r"blocks/attention/output/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"blocks/down/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"transformer/(tokens|positions)$", PartitionSpec("fsdp", "tensor")),
    (r"", PartitionSpec()),  # norms, other biases and heads are small: everywhere
)


def spec(path: str) -> PartitionSpec:
    """The mesh axes of the parameter at `path`."""
    return next(axes for pattern, axes in RULES if re.search(pattern, path))
