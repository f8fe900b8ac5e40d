"""Writes the model of a run folder as a Hugging Face folder."""

from rmjax import launch
from rmjax.runs import export

if __name__ == "__main__":
    launch.main(export.run)
