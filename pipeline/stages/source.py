"""Find or download the raw data and fingerprint them: the stage `source`, which always runs.

It writes artifacts/source.json, on which `prepare` depends, so that one image added to a folder
re-runs the pipeline. Without raw data an existing fingerprint of the same request is kept, with
one warning (a clone that pulled the outputs). It also writes the digest of each stage's code
(pipeline.runtime.code_digest).
"""

from pipeline.config.schema import Data, Params
from pipeline.factory import raw_data
from pipeline.runtime import console, paths
from pipeline.runtime.code_digest import write_stage_digests
from pipeline.stages.stage_run import run_stage
from vae.data import sources
from vae.data.readers import MissingDataError
from vae.io import read_json, write_json


def fingerprint_raw_data(data: Data) -> None:
    """Write source.json, unless it says the same already."""
    previous = read_json(paths.SOURCE) if paths.SOURCE.is_file() else None
    try:
        raw_files = raw_data.find_raw_files(data, sources.find)
    except MissingDataError as missing:
        if previous and previous.get("request") == data.request_digest():
            console.warn(f"{missing.what}; the fingerprint in artifacts/source.json is kept")
            return
        raw_files = raw_data.find_raw_files(data, sources.fetch)
    current = raw_data.fingerprint_files(data, raw_files)
    if current != previous:
        write_json(paths.SOURCE, current)


def run(params: Params) -> None:
    """Write the digests of code and of raw data."""
    write_stage_digests(paths.CODE)
    fingerprint_raw_data(params.data)


if __name__ == "__main__":
    run_stage(run, "source", __doc__)
