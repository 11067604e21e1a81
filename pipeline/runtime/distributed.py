"""The rank of this process under torchrun; without torchrun it is the only process.

torchrun (`torchrun --nproc-per-node 2 train.py`) starts the same command several times and ends
all of them when one fails; its summary contains the error's line from the file that it names.
"""

import json
import os
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class RankInfo:
    """Process `rank` of `size`; on this machine number `local_rank` of `local_size`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


SINGLE_PROCESS = RankInfo()


def current_rank() -> RankInfo:
    """The rank in torchrun's environment; a RANK set by another program is ignored."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return SINGLE_PROCESS
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return RankInfo(*(int(os.environ[name]) for name in names))


def write_torchelastic_error(line: str) -> None:
    """Leave an error's line for torchrun's summary."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if current_rank().size == 1 or not path:
        return
    extra_info = {"py_callstack": line, "timestamp": str(int(time.time()))}
    with open(path, "w") as file:
        json.dump({"message": {"message": line, "extraInfo": extra_info}}, file)
