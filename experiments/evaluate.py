"""Evaluates the model of a run folder, or of a Hugging Face folder, on any data."""

from rmjax import launch
from rmjax.runs import evaluate

if __name__ == "__main__":
    launch.main(evaluate.run)
