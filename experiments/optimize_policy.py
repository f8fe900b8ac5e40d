"""Trains a language model; configs/policy.py says on what, and against which reward."""

from rmjax import launch
from rmjax.runs import optimize_policy

if __name__ == "__main__":
    launch.main(optimize_policy.run, config="configs/policy.py:gpt")
