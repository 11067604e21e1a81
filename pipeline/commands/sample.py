"""Samples of a saved model as one picture.

    python -m pipeline sample NAME|PATH --n 64 --out sheet.png

NAME is a model that comes with the library, PATH the folder of a saved model or of a project whose
chain has reached the prior (`.` is this one). Images are E[x | z] of draws z of the model's prior.
"""

import argparse
from pathlib import Path

from pipeline.runtime.console import info
from vae.errors import UserError


def sample(name: str, n: int, seed: int, temperature: float | None, out: Path) -> None:
    """Draw n images and write the sheet."""
    from pipeline.scoring.renderer import sample_sheet
    from vae.figures.sheets import save_png
    from vae.saved import load

    model = load(name)
    try:
        images = model.sample(n, seed, temperature)
    except ValueError as error:
        raise UserError(str(error), where="sample") from None
    used = model.temperature if temperature is None else temperature
    data_set = model.description["data_set"]
    save_png(sample_sheet(images, data_set, model.prior.name, seed, used), out)
    info(f"{n} samples of {name}: {out}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME|PATH")
    parser.add_argument("--n", type=int, default=64, help="number of images (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--temperature", type=float, help="default: the model's own")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="a PNG file")
    options = parser.parse_args()
    if options.n < 1:
        raise UserError("the number of images is at least 1", where="--n")
    sample(options.name, options.n, options.seed, options.temperature, options.out)
