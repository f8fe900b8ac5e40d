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
        config="configs/reward.py:movie",
    )
