"""Trains and evaluates a reward model on every fold of a small data set."""

from rmjax import launch
from rmjax.runs import cross_validate

if __name__ == "__main__":
    launch.main(cross_validate.run, config="configs/reward.py:ratings")
