"""Find or download the raw data and fingerprint them: the stage `source`, which always runs.

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
from vae.data.readers import MissingData
from vae.io import read_json, write_json


def source(data: Data) -> None:
    """Write source.json, unless it says the same already."""
    before = read_json(paths.SOURCE) if paths.SOURCE.is_file() else None
    try:
        found = raw_data.locate(data, sources.find)
    except MissingData as missing:
        if before and before.get("request") == raw_data.request_of(data):
            console.warn(f"{missing.what}; the fingerprint in artifacts/source.json is kept")
            return
        found = raw_data.locate(data, sources.fetch)
    now = raw_data.fingerprint(data, found)
    if now != before:
        write_json(paths.SOURCE, now)


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.stages.source")
    arguments = parser.parse_args()
    settings = params.load(arguments.params, arguments.set)
    write_stage_digests(paths.CODE)
    source(settings.data)


if __name__ == "__main__":
    console.command(main)
