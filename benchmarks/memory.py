"""Memory of a training as the data grow: `python -m benchmarks.memory`.

A separate process per measurement trains some steps of a preset on random bytes in a file, held in
memory (`train.data_location: device`) or memory-mapped (`disk`), with one size and ten times that:

    peak        maximum resident memory, with mapped pages of the file
    own         resident memory of the process alone at the end, without pages of mapped files

Writes `memory.json`.
"""

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from benchmarks.project import call
from pipeline.config.preset import load_preset
from pipeline.runtime.console import info, run_command
from vae.rng import numpy_generator

PRESET, SHAPE = "fashion_mnist", (1, 28, 28)
COUNTS = (55_000, 550_000)
STEPS = 40


def main() -> None:
    arguments = windows.parse_options(__doc__, "memory")
    machine, rows = windows.describe_machine(), []
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        for count in COUNTS:
            path = Path(folder, f"{count}.npy")
            pixels = numpy_generator(0, "benchmark").integers(0, 256, (count, *SHAPE), np.uint8)
            np.save(path, pixels)
            for location in ("device", "disk"):
                row = {
                    "images": count,
                    "data_location": location,
                    "data_mib": pixels.nbytes / 2**20,
                }
                row |= call("benchmarks.memory.train_and_measure", str(path), location)
                rows.append(row)
                info(", ".join(f"{key} {value}" for key, value in row.items()))
    windows.write_results(arguments.out, {"machine": machine, "preset": PRESET, "rows": rows})


def train_and_measure(path: str, data_location: Any) -> dict[str, float]:
    """Train some steps; MiB of this process."""
    from pipeline.factory.training import ImageSpec, set_up_training
    from vae.data.batches import Images
    from vae.training.loop import fit

    training = set_up_training(load_preset(PRESET), ImageSpec(SHAPE))
    machine = training.machine
    images = Images.open(Path(path), machine.device, data_location)
    small = Images(np.asarray(images.array[:256]), machine.device)
    for _ in islice(fit(training.state, training.plan, images, small, machine), STEPS):
        pass
    sizes = windows.memory_mib()
    return {"peak_mib": round(sizes["VmHWM"], 1), "own_mib": round(sizes["RssAnon"], 1)}


if __name__ == "__main__":
    run_command(main)
