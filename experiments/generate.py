"""Samples answers to prompts, ranked by a reward model if one is named."""

from rmjax import launch
from rmjax.runs import generate

if __name__ == "__main__":
    launch.main(generate.run)
