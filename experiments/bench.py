"""Measures how fast this machine trains: `reward`, and `lengths`, the cost of a token in longer texts."""

from rmjax import launch
from rmjax.runs import bench

if __name__ == "__main__":
    launch.main(
        {"reward": bench.reward, "lengths": bench.lengths}, config="configs/reward.py:movie"
    )
