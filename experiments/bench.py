"""Measures how fast this machine trains: `reward`."""

from rmjax import launch
from rmjax.runs import bench

if __name__ == "__main__":
    launch.main({"reward": bench.reward}, config="configs/reward.py:movie")
