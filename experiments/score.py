"""Scores JSON lines with the model of a run folder."""

from rmjax import launch
from rmjax.runs import score

if __name__ == "__main__":
    launch.main(score.run)
