"""Measures how fast this machine trains."""

from rmjax import launch
from rmjax.runs import bench

if __name__ == "__main__":
    launch.main(bench.run)
