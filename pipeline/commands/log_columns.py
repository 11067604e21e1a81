"""What people call the columns of a training log, and what this project calls them.

A name is cut into words (`valTotalLoss`, `val/total_loss` and `Val. Total Loss` are the same),
a word like `val` says which split it is of, words like `avg` and `loss` say nothing, and what is
left is looked up. Columns of our own history.csv are known as they are.
"""

import re
from collections.abc import Iterable, Mapping

from vae.errors import UserError

TRAIN = {"train", "training", "tr"}
VALID = {"val", "valid", "validation", "test", "eval", "dev", "heldout"}
LOSS = {"loss", "losses", "cost"}
FILLING = {"avg", "average", "mean", "running", "epoch", "term", "set"}
QUANTITIES = {
    "objective": ("total", "objective", "vae", "negative elbo", "neg elbo", "nelbo"),
    "distortion": (
        "recon",
        "recons",
        "reconstruction",
        "reconst",
        "rec",
        "bce",
        "recon bce",
        "mse",
        "recon mse",
        "sse",
        "nll",
        "distortion",
    ),
    "rate": (
        "kl",
        "kld",
        "dkl",
        "kl div",
        "kl divergence",
        "kldiv",
        "rate",
        "latent loss",
        "regularization",
        "regularisation",
    ),
    "mu_mean": ("mu", "mus"),
    "log_var_mean": ("logvar", "log var", "log variance"),
    "active_units": ("active units", "active", "au"),
    "grad_norm": ("grad norm", "gradient norm", "gradnorm"),
    "clipped_share": ("clipped share",),
    "bits_per_dim": ("bits per dim", "bits dim", "bpd"),
}
WHOLE = {
    "epoch": ("epoch", "epochs", "ep"),
    "step": ("step", "steps", "iteration", "iterations", "iter"),
    "beta": ("beta", "kl weight", "kld weight", "kl beta", "beta kl", "kl coeff"),
    "lr": ("lr", "learning rate"),
}
MAP_KEYS = {"total": "objective", "recon": "distortion", "kl": "rate"}
OWN_ONLY = {"sigma", "train_skipped", "valid_final_objective"}

_LOOKUP = {text: name for name, texts in QUANTITIES.items() for text in texts}
_WHOLE = {text: name for name, texts in WHOLE.items() for text in texts}
OWN = {f"{split}_{name}" for split in ("train", "valid") for name in QUANTITIES}
OWN |= set(WHOLE) | OWN_ONLY


def column_of(name: str) -> str | None:
    """Our name of a column, or None."""
    if name in OWN:
        return name
    words = _words(name)
    if " ".join(words) in _WHOLE:
        return _WHOLE[" ".join(words)]
    split = "valid" if VALID & set(words) else "train"
    telling = [word for word in words if word not in VALID | TRAIN | FILLING]
    bare = [word for word in telling if word not in LOSS]
    if telling and not bare:
        return f"{split}_objective"
    found = _LOOKUP.get(" ".join(telling)) or _LOOKUP.get(" ".join(bare))
    return None if found is None else f"{split}_{found}"


def _words(name: str) -> list[str]:
    """Lower-case words; a capital after a small letter begins one."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", parted.lower())


def parse_map(text: str) -> dict[str, str]:
    """`total=loss,kl=kld` as {name in the file: our column}."""
    chosen = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, name = (part.strip() for part in pair.partition("="))
        column = _column_of_key(key)
        if not equals or not name or column is None:
            raise UserError(
                f"`{pair}` is not of the form column=name in the file",
                where="--map",
                remedy=f"columns: {', '.join(_keys())}",
            )
        chosen[name] = column
    return chosen


def _column_of_key(key: str) -> str | None:
    valid = key.startswith("valid_")
    stem = key.removeprefix("valid_").removeprefix("train_")
    stem = MAP_KEYS.get(stem, stem)
    if stem in QUANTITIES:
        return f"{'valid' if valid else 'train'}_{stem}"
    return key if key in OWN else None


def _keys() -> Iterable[str]:
    return [*WHOLE, *MAP_KEYS, "mu_mean", "log_var_mean", "grad_norm", "valid_total", "..."]


def assign(names: Iterable[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """{name in the file: our column}; a column that is chosen has no other name.

    Else several names may be one column, as `Loss` of batches and `Average loss` of the epoch;
    of one epoch the last value stands.
    """
    found = {}
    for name in names:
        column = chosen.get(name) or column_of(name)
        if column is not None and (name in chosen or column not in chosen.values()):
            found[name] = column
    return found
