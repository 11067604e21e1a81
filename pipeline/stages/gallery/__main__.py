"""The stage `gallery` of dvc.yaml: `python -m pipeline.stages.gallery`."""

from pipeline.stages.gallery.stage import write_gallery
from pipeline.stages.stage_run import run_stage

if __name__ == "__main__":
    run_stage(write_gallery, "gallery", __doc__)
