"""Measures how fast this machine trains (`reward`, `lengths`), samples (`generate`, `continuous`) and learns from
samples (`policy`)."""

from rmjax import launch
from rmjax.runs import bench, bench_policy

if __name__ == "__main__":
    launch.main(
        {
            "reward": bench.reward,
            "lengths": bench.lengths,
            "generate": bench_policy.generate,
            "continuous": bench_policy.continuous,
            "policy": bench_policy.rollouts,
        },
        config={
            "reward": "configs/reward.py:movie",
            "lengths": "configs/reward.py:movie",
            "policy": "configs/policy.py:tiny_rloo",
        },
    )
