"""Where each parameter lives on a mesh with the axes data, fsdp and tensor.

Tensor parallelism splits attention heads and MLP units (Shoeybi et al. 2019); fsdp splits the other axis. Where key
heads are fewer than the tensor axis, it splits their channels: the numbers are the same, at the cost of a gather.
"""

import re

from jax.sharding import PartitionSpec

RULES = (  # first match counts; block parameters carry their layer axis first
    (r"blocks/(attention|cross)/(query|key|value)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"blocks/(gate|up)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"blocks/(attention|cross)/(query|key|value)/bias$", PartitionSpec(None, "tensor")),
    (r"blocks/(gate|up)/bias$", PartitionSpec(None, "tensor")),
    (r"blocks/(attention|cross)/output/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"blocks/down/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"^((critic_)?transformer/(tokens|positions)|unembed)$", PartitionSpec("fsdp", "tensor")),
    (r"^critic/q/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"", PartitionSpec()),  # norms, other biases, adapters and heads are small: everywhere
)


def spec(path: str) -> PartitionSpec:
    """The mesh axes of the parameter at `path`."""
    return next(axes for pattern, axes in RULES if re.search(pattern, path))
