"""Run the stage: `python -m pipeline.stages.gallery`."""

from pipeline.runtime.console import run_command
from pipeline.stages.gallery.stage import main

if __name__ == "__main__":
    run_command(main)
