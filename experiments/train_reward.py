"""Trains a reward model; configs/reward.py says on what and how."""

from rmjax import launch
from rmjax.runs import train_reward

if __name__ == "__main__":
    launch.main(train_reward.run, config="configs/reward.py:ratings")
