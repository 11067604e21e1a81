"""A saved model: a trained VAE and the prior that its samples are drawn from, in one folder.

    import vae

    model = vae.load("fashion_mnist")           # a name, or the folder of a model or of a run
    images = model.sample(16, seed=0)           # (16, 1, 28, 28), float32 in [0, 1]
    codes = model.encode(images)                # (16, *latent)

The folder of a saved model:

    model.json              data set, image shape, class names; network, latent and likelihood by
                            name and options; the prior, its temperature; the feature extractor
    model.safetensors       weights, float32
    prior.safetensors       the prior's numbers; matrices in float16 where that changes none
    extractor.safetensors   the classifier whose features scored the samples, where there is one

A sample is E[x | z] of a draw z of the prior at its temperature; draws are a function of the seed.
On a CPU the same seed gives the same bytes as the pipeline's sheets. Images go in as uint8
(N, C, H, W), or as real numbers in [0, 1]; tensors come out on the CPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vae.data.batches import Images, to_float
from vae.device import DeviceName, Machine
from vae.errors import UserError
from vae.evaluation.metrics import elbo
from vae.io import read_json, read_tensors, tensor_bytes, write_bytes, write_json
from vae.models.posterior import Posterior
from vae.models.vae import VAE
from vae.priors import prior as priors
from vae.priors.prior import Prior
from vae.rng import normal
from vae.training.checkpoints import restored_model

if TYPE_CHECKING:
    from vae.evaluation.metrics.classifier import Classifier

PRETRAINED = Path(__file__).with_name("pretrained")
FORMAT = 1
BATCH = 256  # images at a time
DESCRIPTION, MODEL, PRIOR, EXTRACTOR = (
    "model.json",
    "model.safetensors",
    "prior.safetensors",
    "extractor.safetensors",
)
# Of a run, below its folder `artifacts`.
RUN_MODEL, RUN_PRIORS = Path("model", "best.safetensors"), Path("prior", "prior.json")
RUN_DATA, RUN_CLASSIFIER = Path("data", "spec.json"), Path("extractor", "classifier.safetensors")


@dataclass(frozen=True)
class SavedModel:
    """A trained VAE, its prior, and what they are.

    description   data_set and its licence, key (of the training), image (C, H, W), levels (grey
                  values), classes, model (network, latent, log_var_range, likelihood), extractor
                  (name and digest of the network that scored the samples, or None); JSON-able
    classifier    the extractor where it is a classifier of the data's own classes
    """

    description: Mapping[str, Any]
    vae: VAE
    prior: Prior
    temperature: float
    classifier: "Classifier | None" = None

    @property
    def device(self) -> str:
        return next(self.vae.parameters()).device.type

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their labels; none where the data have none."""
        return tuple(self.description["classes"])

    def sample(self, n: int, seed: int = 0, temperature: float | None = None) -> Tensor:
        """E[x | z] of n draws z of the prior, (n, C, H, W) in [0, 1]; None: its own temperature.

        Raises ValueError for a negative number or temperature.
        """
        chosen = self.temperature if temperature is None else temperature
        return self.decode(torch.from_numpy(self.prior.sample(n, seed, chosen)))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """E[x | z] (N, C, H, W) in [0, 1] of codes (N, *latent); ValueError for other shapes."""
        if tuple(z.shape[1:]) != self.vae.latent_shape:
            raise ValueError(
                f"codes are {tuple(z.shape)}, the model is for (N, {self.vae.latent_shape})"
            )
        batches = [batch.float().to(self.device) for batch in torch.split(z, BATCH)]
        return torch.cat([self.vae.mean_image(batch).cpu() for batch in batches]).contiguous()

    def encode(self, images: Tensor | np.ndarray, seed: int | None = None) -> Tensor:
        """Codes (N, *latent): the means of q(z | x), or with a seed one draw of each."""
        posterior = self.posterior(images)
        if seed is None:
            return posterior.mu
        return posterior.rsample(normal(tuple(posterior.mu.shape), seed, "saved encode"))

    @torch.no_grad()
    def posterior(self, images: Tensor | np.ndarray) -> Posterior:
        """q(z | x), mu and log_var (N, *latent); ValueError for images of another shape."""
        real = self._real(images)
        batches = [self.vae.encode(x.to(self.device)) for x in torch.split(real, BATCH)]
        mu, log_var = (
            [getattr(batch, name).cpu() for batch in batches] for name in ("mu", "log_var")
        )
        return Posterior(torch.cat(mu), torch.cat(log_var))

    def reconstruct(self, images: Tensor | np.ndarray) -> Tensor:
        """Images decoded from the means of their codes, (N, C, H, W) in [0, 1]."""
        return self.decode(self.encode(images))

    def score(self, images: Tensor | np.ndarray, seed: int = 0) -> dict[str, Tensor]:
        """Of each image, (N,), float64: elbo, distortion and rate in nats; bits_per_dim where the
        likelihood gives 8-bit (or binary) images a probability. Real images are rounded to 8 bits.

        The numbers are those of evaluation.metrics.elbo with this seed and batches of 256.
        """
        pixels = (255 * self._real(images)).round().byte().numpy()
        if self.description["levels"] == 2 and not np.isin(pixels, (0, 255)).all():
            raise ValueError("the model is for binary images: pixels are 0 or 1 (uint8: 0 or 255)")
        split, machine = Images(pixels, self.device, "disk"), _machine(self.device)
        batches = elbo.score(self.vae, split, machine, seed=seed, batch_size=BATCH)
        values = elbo.per_image(elbo.concatenate(batches), self.vae.dimensions)
        scores = {name: values[name] for name in ("elbo", "distortion", "rate", "bits_per_dim")}
        return {name: torch.from_numpy(v) for name, v in scores.items() if v is not None}

    def _real(self, images: Tensor | np.ndarray) -> Tensor:
        """Images as float32 in [0, 1]; ValueError for other shapes, types or values."""
        x = torch.as_tensor(images).cpu()
        if x.ndim != 4 or tuple(x.shape[1:]) != self.vae.image_shape:
            raise ValueError(
                f"images are {tuple(x.shape)}, the model is for (N, {self.vae.image_shape})"
            )
        if x.dtype == torch.uint8:
            return to_float(x)
        if not x.is_floating_point() or not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError("images are uint8, or real numbers in [0, 1]")
        return x.float().contiguous(memory_format=torch.channels_last)

    def with_rounded_prior(self) -> "SavedModel":
        """The same model with the matrices of its prior rounded to float16, which halves its file.

        Raises ValueError if a number is too large for float16.
        """
        rounded = {name: _rounded(value) for name, value in self.prior.tensors().items()}
        prior = priors.from_tensors(rounded, self.prior.metadata(), _machine(self.device))
        return replace(self, prior=prior)

    def save(self, folder: str | Path) -> None:
        """Write the folder; model.json comes last, so where it stands the others are whole."""
        folder, tensors = Path(folder), self.prior.tensors()
        write_bytes(folder / MODEL, tensor_bytes(self.vae.state_dict(), {}))
        smallest = {name: _smallest(value) for name, value in tensors.items()}
        write_bytes(folder / PRIOR, tensor_bytes(smallest, {}))
        if self.classifier is not None:
            write_bytes(folder / EXTRACTOR, self.classifier.to_bytes())
        types = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
        metadata = self.prior.metadata() | {"temperature": self.temperature, "dtypes": types}
        write_json(folder / DESCRIPTION, {**self.description, "format": FORMAT, "prior": metadata})


def _rounded(tensor: Tensor) -> Tensor:
    """A matrix with the numbers of float16; vectors are small and stay as they are."""
    rounded = tensor.half().to(tensor.dtype) if tensor.ndim > 1 else tensor
    if not bool(rounded.isfinite().all()):
        raise ValueError("the prior has numbers above 65504, the largest of float16")
    return rounded


def _smallest(tensor: Tensor) -> Tensor:
    """A matrix in float16 if that changes no number."""
    half = tensor.half()
    return half if tensor.ndim > 1 and half.to(tensor.dtype).equal(tensor) else tensor


# Loading


def names() -> list[str]:
    """The models that come with the library."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{DESCRIPTION}"))


def load(name_or_path: str | Path, device: DeviceName = "auto") -> SavedModel:
    """A model that comes with the library, by name (`/` or `.` between its parts), or the one in a
    folder: of a saved model, or of a project whose chain has reached the prior.

    Raises UserError if there is none, or if its files are not whole.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name = str(name_or_path).replace("/", ".")
    folder = PRETRAINED / name if name in names() else Path(name_or_path)
    if (folder / DESCRIPTION).is_file():
        return _load_saved(folder, device)
    for artifacts in (folder / "artifacts", folder):
        if (artifacts / RUN_MODEL).is_file():
            return _load_run(artifacts, device)
    raise UserError(
        "no such model",
        where=str(name_or_path),
        remedy=f"a name ({', '.join(names()) or 'there is none'}), "
        "or the folder of a saved model or of a finished run",
    )


def _load_saved(folder: Path, device: str) -> SavedModel:
    description = read_json(folder / DESCRIPTION)
    if description.get("format") != FORMAT:
        raise UserError(
            f"a saved model of format {description.get('format')}; this library reads {FORMAT}",
            where=str(folder),
            remedy="install the version of the library that wrote it",
        )
    metadata = description.pop("prior")
    tensors, _ = read_tensors(folder / PRIOR)
    types = metadata.pop("dtypes")
    tensors = {name: value.to(getattr(torch, types[name])) for name, value in tensors.items()}
    weights, _ = read_tensors(folder / MODEL)
    return SavedModel(
        description=description,
        vae=restored_model(weights, description, device, str(folder)),
        temperature=metadata.pop("temperature"),
        prior=priors.from_tensors(tensors, metadata, _machine(device)),
        classifier=_classifier(folder / EXTRACTOR),
    )


def _load_run(artifacts: Path, device: str) -> SavedModel:
    weights, metadata = read_tensors(artifacts / RUN_MODEL)
    prior, temperature = _prior_of_run(artifacts, metadata["key"], device)
    data, classifier = artifacts / RUN_DATA, _classifier(artifacts / RUN_CLASSIFIER)
    description = {name: metadata[name] for name in ("data_set", "key", "image", "levels", "model")}
    spec = read_json(data) if data.is_file() else {}
    description |= {"classes": spec.get("classes", []), "licence": spec.get("licence")}
    own = classifier and {"name": "in_domain", "digest": classifier.digest()}
    return SavedModel(
        description=description | {"extractor": own},
        vae=restored_model(weights, metadata, device, str(artifacts / RUN_MODEL)),
        temperature=temperature,
        prior=prior,
        classifier=classifier,
    )


def _prior_of_run(artifacts: Path, key: str, device: str) -> tuple[Prior, float]:
    """The chosen prior of the run's model, and its temperature."""
    index = artifacts / RUN_PRIORS
    metadata: dict[str, Any] = read_json(index) if index.is_file() else {"model": None}
    if metadata["model"] != key:
        raise UserError(
            f"no prior of the trained model, {key}",
            where=str(index.parent),
            remedy="run `dvc repro prior` there",
        )
    tensors, described = read_tensors(index.with_name(f"{metadata['selected']}.safetensors"))
    prior = priors.from_tensors(tensors, described, _machine(device))
    return prior, float(metadata["temperature"])


def _classifier(path: Path) -> "Classifier | None":
    if not path.is_file():
        return None
    from vae.evaluation.metrics import classifier

    return classifier.load(path)


def _machine(device: str) -> Machine:
    """The device in fp32, without a change of torch's settings."""
    return Machine(device, "fp32", torch.get_num_threads())
