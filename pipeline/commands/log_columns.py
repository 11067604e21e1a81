"""Map the column names of any training log to this project's names.

A name is split into words (`valTotalLoss`, `val/total_loss` and `Val. Total Loss` are equal). A
word such as `val` names the split, words such as `avg` and `loss` are ignored, and the others are
looked up. Columns of this project's history.csv keep their names.
"""

import re
from collections.abc import Iterable, Mapping

from vae.errors import UserError

TRAIN_WORDS = {"train", "training", "tr"}
VALID_WORDS = {"val", "valid", "validation", "test", "eval", "dev", "heldout"}
LOSS_WORDS = {"loss", "losses", "cost"}
FILLER_WORDS = {"avg", "average", "mean", "running", "epoch", "term", "set"}
QUANTITIES = {
    "objective": "total, objective, vae, negative elbo, neg elbo, nelbo",
    "distortion": (
        "recon, recons, reconstruction, reconst, rec, bce, "
        "recon bce, mse, recon mse, sse, nll, distortion"
    ),
    "rate": (
        "kl, kld, dkl, kl div, kl divergence, "
        "kldiv, rate, latent loss, regularization, regularisation"
    ),
    "mu_mean": "mu, mus",
    "log_var_mean": "logvar, log var, log variance",
    "active_units": "active units, active, au",
    "grad_norm": "grad norm, gradient norm, gradnorm",
    "clipped_fraction": "clipped fraction, clipped share",
    "bits_per_dim": "bits per dim, bits dim, bpd",
}
SPLITLESS_COLUMNS = {
    "epoch": "epoch, epochs, ep",
    "step": "step, steps, iteration, iterations, iter",
    "beta": "beta, kl weight, kld weight, kl beta, beta kl, kl coeff",
    "lr": "lr, learning rate",
}
"""Our name of a column: names in logs, separated by commas."""
MAP_ALIASES = {"total": "objective", "recon": "distortion", "kl": "rate"}
MAP_KEYS = (
    *SPLITLESS_COLUMNS,
    *MAP_ALIASES,
    "mu_mean",
    "log_var_mean",
    "grad_norm",
    "valid_total",
    "...",
)
HISTORY_ONLY_COLUMNS = {"sigma", "train_skipped_steps", "valid_final_objective"}

_QUANTITY_LOOKUP = {text: name for name, texts in QUANTITIES.items() for text in texts.split(", ")}
_SPLITLESS_LOOKUP = {
    text: name for name, texts in SPLITLESS_COLUMNS.items() for text in texts.split(", ")
}
HISTORY_COLUMNS = {f"{split}_{name}" for split in ("train", "valid") for name in QUANTITIES}
HISTORY_COLUMNS |= set(SPLITLESS_COLUMNS) | HISTORY_ONLY_COLUMNS


def find_column(name: str) -> str | None:
    """Our name of a column, or None."""
    if name in HISTORY_COLUMNS:
        return name
    words = _split_words(name)
    if " ".join(words) in _SPLITLESS_LOOKUP:
        return _SPLITLESS_LOOKUP[" ".join(words)]
    split = "valid" if VALID_WORDS & set(words) else "train"
    content_words = [word for word in words if word not in VALID_WORDS | TRAIN_WORDS | FILLER_WORDS]
    quantity_words = [word for word in content_words if word not in LOSS_WORDS]
    if content_words and not quantity_words:
        return f"{split}_objective"
    quantity = _QUANTITY_LOOKUP.get(" ".join(content_words)) or _QUANTITY_LOOKUP.get(
        " ".join(quantity_words)
    )
    return None if quantity is None else f"{split}_{quantity}"


def _split_words(name: str) -> list[str]:
    """Lower-case words; a capital after a small letter begins one."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())


def parse_column_map(text: str) -> dict[str, str]:
    """`total=loss,kl=kld` as {name in the file: our column}."""
    column_map = {}
    for pair in filter(None, (pair_text.strip() for pair_text in text.split(","))):
        key, equals, name = (pair_text.strip() for pair_text in pair.partition("="))
        column = _find_map_column(key)
        if not equals or not name or column is None:
            raise UserError(
                f"`{pair}` is not of the form column=name in the file",
                where="--map",
                remedy=f"columns: {', '.join(MAP_KEYS)}",
            )
        column_map[name] = column
    return column_map


def _find_map_column(key: str) -> str | None:
    split = "valid" if key.startswith("valid_") else "train"
    stem = key.removeprefix("valid_").removeprefix("train_")
    stem = MAP_ALIASES.get(stem, stem)
    if stem in QUANTITIES:
        return f"{split}_{stem}"
    return key if key in HISTORY_COLUMNS else None


def assign_columns(names: Iterable[str], column_map: Mapping[str, str]) -> dict[str, str]:
    """{name in the file: our column}; `column_map` excludes other names of its columns.

    Otherwise several names may give one column, such as `Loss` of batches and `Average loss` of the
    epoch; the last value of an epoch is used.
    """
    columns = {}
    for name in names:
        column = column_map.get(name) or find_column(name)
        if column is not None and (name in column_map or column not in column_map.values()):
            columns[name] = column
    return columns
