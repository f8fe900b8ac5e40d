"""Every public function in these modules is a reward that a config can name: texts in, float32 [N] out, higher better.

Positional arguments are found by name: what a rollout offers (completions, prompts, references, stopped) and resources
that the caller builds (embed, word_vectors, score, probabilities, log_ratio, table).
Keyword-only arguments are hyperparameters, set in the config's spec string.
A reward does not depend on the other completions of the batch; `combine` and whoever calls it see the whole batch.
"""

from rmjax import lookup
from rmjax.rewards import answers, code, learned, rules, similarity

REWARDS = lookup.table(rules, answers, code, similarity, learned)
