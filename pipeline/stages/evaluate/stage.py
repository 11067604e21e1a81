"""The evaluate stage: numbers of a trained model and its priors on held-out images.

reports/evaluate.json    the test split: ELBO and its parts, IWAE, latents, and the headline of the
                         first judge for the shipped prior's samples
reports/judges.json      all distances: by judge, split, and what was compared (judging.py)
reports/diagnosis.*      the verdict
artifacts/samples        the images that the judges saw
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import to_tree
from pipeline.config.schema import Params
from pipeline.factory.build import from_tensors
from pipeline.factory.load import find_checkpoint, open_model, open_prior, open_split, resolve
from pipeline.runtime import paths, run_log
from pipeline.runtime.code_digest import code_digest
from pipeline.runtime.console import progress, say, table, warn
from pipeline.scoring import extractors, sample_metrics
from pipeline.scoring.diagnosis import write_verdict
from pipeline.scoring.renderer import Renderer
from pipeline.stages.evaluate.failure_inputs import show_failures
from pipeline.tracking import records
from vae import device as machines
from vae.errors import UserError
from vae.evaluation.metrics import elbo, iwae, latents, linear_vae
from vae.figures.charts import Chart, Panel, Series, rate_spectrum
from vae.figures.png import write_png
from vae.io import read_array, read_json, write_csv, write_json
from vae.models.vae import VAE
from vae.priors.encodings import marginal_kl_bound
from vae.priors.prior import Prior
from vae.training.validation import active_units

FOLDER = paths.FIGURES / "evaluate"
SPLITS = ("valid", "test")


def evaluate(params: Params) -> None:
    """Score the shipped best weights and write the stage's outputs."""
    model, about, machine = open_model(paths.BEST, params.evaluate.device)
    settings, code = to_tree(params, "evaluate"), code_digest("evaluate.py")
    beside = {stage: read_json(paths.report(stage))["key"] for stage in ("prior", "extractor")}
    key = records.child_key("evaluate", about["key"], settings | beside, code)
    run_log.start(paths.log_of(key), "evaluate", machine.as_dict())
    shutil.rmtree(FOLDER, ignore_errors=True)
    scores = {split: score(model, params, machine, split) for split in SPLITS}
    write_rates(scores["test"])
    numbers = metrics(model, scores["test"]) | weigh(model, params, machine)
    numbers["ppca_bits_per_dim"] = promised(model)
    priors = {name: open_prior(name, machine) for name in paths.read_priors()["fitted"]}
    numbers |= information(scores["test"], density(priors))
    made = make(model, params, machine, scores, priors)
    courts = convene(params, made)
    trees = {court.judge.name: judge(court, made, paths.log_of(key)) for court in courts}
    write_json(paths.report("judges"), trees)
    first = courts[0] if courts else None  # the judge of the headline
    if first:
        tree = trees[first.judge.name]
        draw_classes(tree, made.shipped)
        numbers |= sample_metrics.headline(first.judge.name, tree, made.shipped)
    show_failures(first, model, params, scores, made)
    report = {"key": key, "model": about["key"], "epoch": about["epoch"], "code": code}
    report |= beside | {"params": settings}
    write_json(paths.report("evaluate"), report | {"metrics": numbers})
    write_verdict()
    run_log.append(paths.log_of(key), "end", status="FINISHED")
    records.send(params.tracking, records.finished_train_row, records.evaluate_row)


def evaluate_checkpoint(params: Params, name: str) -> str:
    """Score another checkpoint by name or path; a table, and no file is changed."""
    tensors, about, where = find_checkpoint(name)
    machine = resolve(params.evaluate.device)
    model = from_tensors(tensors, about, machine, where)
    scores = score(model, params, machine, "test")
    numbers = metrics(model, scores) | weigh(model, params, machine)
    shown = [(key, "none" if value is None else f"{value:.5g}") for key, value in numbers.items()]
    return f"{where}, epoch {about['epoch']}\n{table(shown)}"


def score(model: VAE, params: Params, machine: machines.Machine, split: str) -> elbo.Scores:
    settings = params.evaluate
    images = open_split(split, model, machine.device)
    size = settings.batch_size
    batches = elbo.score(model, images, machine, seed=settings.seed, batch_size=size)
    return elbo.gather(progress(batches, -(-len(images) // size), f"score {split}"))


def metrics(model: VAE, scores: elbo.Scores) -> dict[str, float | None]:
    """The headline numbers of the test split."""
    low, high = model.log_var_range
    clamped = (scores.log_var <= low) | (scores.log_var >= high)
    return elbo.summarise(scores, model.dimensions) | {
        "active_units": active_units(torch.from_numpy(scores.mu)),
        "log_var_clamped": float(clamped.mean()),
        "images": len(scores.mse),
    }


def weigh(model: VAE, params: Params, machine: machines.Machine) -> dict[str, float | None]:
    """The importance-weighted bound of the first test images."""
    settings = params.evaluate
    images, draws = open_split("test", model, machine.device), settings.iwae_samples
    count = min(settings.iwae_images, len(images))
    batches = iwae.importance(
        model,
        images,
        machine,
        seed=settings.seed,
        draws=draws,
        count=count,
        at_once=settings.batch_size,
    )
    steps = -(-count // max(1, settings.batch_size // draws))
    weighted = iwae.gather(progress(batches, steps, f"IWAE-{draws}"))
    return iwae.summarise(weighted, model.dimensions, draws)


def density(priors: Mapping[str, Prior]) -> Prior | None:
    """The prior whose density was chosen on validation, None if none has one.

    UserError for priors that were kept before there was this choice.
    """
    known = paths.read_priors()
    if "density" not in known:
        raise UserError(
            "the priors are kept in another format: it does not name a density",
            where="artifacts/prior/prior.json",
            remedy="run `dvc repro prior`",
        )
    return None if known["density"] is None else priors[known["density"]]


def information(scores: elbo.Scores, density: Prior | None) -> dict[str, float | None]:
    """What the codes say of the images, and how far their distribution is from N(0, I).

    `density` bounds that distance; it was chosen by other codes, for the best of several on these
    ones would be too high.
    """
    bound = None if density is None else marginal_kl_bound(density, scores.z)
    value, error = bound or (None, None)
    return {
        "mutual_information": latents.index_information(scores.mu, scores.log_var, scores.z),
        "mutual_information_ceiling": math.log(len(scores.mu)),
        "marginal_kl_bound": value,
        "marginal_kl_bound_se": error,
    }


def convene(params: Params, made: sample_metrics.Made) -> list[sample_metrics.Court]:
    """The judges that passed their test, the one of the headline first."""
    fewest = min(map(len, made.reconstructions.values()))
    if fewest < extractors.LEAST:
        warn(f"a split of {fewest} images, fewer than {extractors.LEAST}: nothing is judged")
        return []
    settings = params.evaluate
    fast = resolve(settings.device, precision="auto")
    opened = [extractors.open_judge(name, params, fast) for name in extractors.approved(params)]
    rest = (settings.batch_size, settings.seed, settings.samples)
    return [sample_metrics.Court(judge, *rest) for judge in opened]


def judge(court: sample_metrics.Court, made: sample_metrics.Made, log: Path) -> dict[str, Any]:
    """What a judge says; the log and the person hear how long it took for each prior."""
    tree = sample_metrics.judge(court, made)
    name = court.judge.name
    for prior, seconds in court.seconds.items():
        count = len(made.samples[prior])
        say(f"{name}: {count:,} samples of {prior} scored in {seconds:.1f} s")
        run_log.append(log, "scored", judge=name, prior=prior, samples=count, seconds=seconds)
    return tree


def make(
    model: VAE,
    params: Params,
    machine: machines.Machine,
    scores: Mapping[str, elbo.Scores],
    priors: Mapping[str, Prior],
) -> sample_metrics.Made:
    """Reconstructions of both splits, samples of every prior, further ones of the shipped."""
    settings, known = params.evaluate, paths.read_priors()
    renderer = Renderer(model, machine, settings.batch_size, known["temperature"])
    count, seed = settings.samples, settings.seed
    for folder in (paths.SAMPLES, paths.RECONSTRUCTIONS):
        shutil.rmtree(folder, ignore_errors=True)
    return sample_metrics.Made(
        reconstructions={
            split: renderer.write(paths.RECONSTRUCTIONS / f"{split}.npy", scored.mu)
            for split, scored in scores.items()
        },
        samples={name: renderer.samples(prior, count, seed) for name, prior in priors.items()},
        codes={
            name: prior.sample(count, seed, known["temperature"]) for name, prior in priors.items()
        },
        shipped=known["shipped"],
        repeats=tuple(
            renderer.more(priors[known["shipped"]], count, seed + number)
            for number in range(1, settings.repeats)
        ),
    )


def promised(model: VAE) -> float | None:
    """bits/dim of probabilistic PCA with as many components as the model has latents."""
    if model.likelihood.discrete and paths.read_spec()["levels"] == 2:
        return None
    values = read_array(paths.DATA / "spectrum.npy")
    total = read_json(paths.report("data"))["pixels"]["train"]["total_variance"]
    return linear_vae.ppca_bits_per_dim(
        values.tolist(),
        total_variance=total,
        dimensions=model.dimensions,
        components=math.prod(model.latent),
    )


def draw_classes(tree: Mapping[str, Any], shipped: str) -> None:
    """How many samples and how many test images the judge takes for each class."""
    found = tree["splits"]["test"].get("classes")
    if found is None:
        return
    names = paths.read_spec()["classes"]
    places = list(range(len(found["real"])))
    shares = {
        f"samples of {shipped}": found["samples"],
        "test images": found["real"],
    }
    series = [
        Series(label, places, [count / sum(counts) for count in counts], kind="bar")
        for label, counts in shares.items()
    ]
    words = ", ".join(f"{place} {names[place]}" for place in places[:10])
    title = f"chi-square {found['chi_square']:.4g}, misplaced {found['misplaced']:.1%}"
    panel = Panel(title, words, "share, as the judge sees them", series)
    write_png(Chart("Classes of samples and of test images", [panel]), FOLDER / "classes.png")


def write_rates(scores: elbo.Scores) -> None:
    """KL per dimension as a table and a chart, the highest first."""
    rates = latents.rate_per_dimension(scores.rate)
    table = [
        {"rank": rank, "dimension": int(index), "rate": float(rates[index])}
        for rank, index in enumerate(latents.leading(rates), 1)
    ]
    write_csv(FOLDER / "rates.csv", table)
    write_png(rate_spectrum(rates), FOLDER / "rates.png")
