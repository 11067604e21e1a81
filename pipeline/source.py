"""Find or download the raw data and fingerprint them: the stage `source`, which always runs.

It writes artifacts/source.json, on which `prepare` depends, so that one image added to a folder
re-runs the chain and nothing else does. Where the raw data are gone but their fingerprint for the
same request is there (a clone that pulled the outputs), it is kept, with one warning.
"""

from pipeline import console, files, params, raw
from pipeline.schema import Data
from vae.data import sources
from vae.data.layouts import MissingData
from vae.storage import read_json, write_json


def source(data: Data) -> None:
    """Write source.json, unless it says the same already."""
    before = read_json(files.SOURCE) if files.SOURCE.is_file() else None
    try:
        found = raw.locate(data, sources.find)
    except MissingData as missing:
        if before and before.get("request") == raw.request_of(data):
            console.warn(f"{missing.what}; the fingerprint in artifacts/source.json is kept")
            return
        found = raw.locate(data, sources.fetch)
    now = raw.fingerprint(data, found)
    if now != before:
        write_json(files.SOURCE, now)


def main() -> None:
    parser = params.command_line(__doc__, "python -m pipeline.source")
    arguments = parser.parse_args()
    source(params.load(arguments.params, arguments.set).data)


if __name__ == "__main__":
    console.command(main)
