"""Train reward models in JAX, optimize language models against them, and know whether they are good.

rm = rmjax.load("runs/ratings")
rm.score(["A quiet masterpiece."])

policy = rmjax.load_policy("runs/rloo")
policy.generate(["The film"], samples=4, temperature=0.7)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmjax.inference.policy import Policy, load_policy
    from rmjax.inference.reward_model import RewardModel, load

__all__ = ["Policy", "RewardModel", "load", "load_policy"]


def __getattr__(name: str) -> Any:
    # Not before they are asked for: whoever imports one part need not wait for all of them.
    if name in ("load", "RewardModel"):
        from rmjax.inference import reward_model as module
    elif name in ("load_policy", "Policy"):
        from rmjax.inference import policy as module
    else:
        raise AttributeError(f"module 'rmjax' has no attribute {name!r}")
    return getattr(module, name)
