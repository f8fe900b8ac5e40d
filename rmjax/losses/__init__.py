"""Every public function in these modules is a loss that a config can name.

Positional arguments are arrays, found by name among a forward pass's outputs; one with default None is optional.
Keyword-only arguments are hyperparameters, set in the config's spec string.
Losses never reduce: the step takes the weighted mean, once, over the global batch.
"""

from rmjax import lookup
from rmjax.losses import likelihood, listwise, pairwise, pointwise, policy, preference

LOSSES = lookup.table(pairwise, pointwise, listwise, likelihood, policy, preference)
