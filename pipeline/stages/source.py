"""Find or download the raw data and fingerprint them: the stage `fingerprint_raw_data`, which
always runs.

It also writes the digest of each stage's code (pipeline.runtime.code_digest).

It writes artifacts/source.json, on which `prepare` depends, so that one image added to a folder
re-runs the chain and nothing else does. Where the raw data are gone but their fingerprint for the
same request is there (a clone that pulled the outputs), it is kept, with one warning.
"""

from pipeline.config import params
from pipeline.config.schema import Data
from pipeline.factory import raw_data
from pipeline.runtime import console, paths
from pipeline.runtime.code_digest import write_stage_digests
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


def main() -> None:
    parser = params.argument_parser(__doc__, "python -m pipeline.stages.source")
    arguments = parser.parse_args()
    settings = params.load(arguments.params, arguments.set)
    write_stage_digests(paths.CODE)
    fingerprint_raw_data(settings.data)


if __name__ == "__main__":
    console.run_command(main)
