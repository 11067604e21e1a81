"""Run the stage: `python -m pipeline.stages.gallery`."""

from pipeline.runtime.console import command
from pipeline.stages.gallery.stage import main

if __name__ == "__main__":
    command(main)
