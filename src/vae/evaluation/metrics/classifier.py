"""The in-domain feature extractor: a small classifier, trained once per data set.

ImageNet has no handwritten digits; a network that separates the data's own classes represents
what matters for them. For images of shorter side s, with p = max(2, round(log2(s / 8))) halvings
and F features:

    p times:   3x3 convolution, batch normalisation, ReLU, 2x2 maximum pooling
    twice:     3x3 convolution to F channels, batch normalisation, ReLU
    features   mean over positions (B, F); logits = W features + b

The i-th of the p layers has F / 2^(p-i) channels, at least 8. Cross-entropy, AdamW, half an epoch
of warm-up, then a cosine schedule to 0. After training each normalisation is folded into the
convolution before it (exact up to rounding), so an image's features do not depend on other images.
The folded weights are saved; their digest, with the shape, identifies the extractor.

Everything follows from the seed: weights (seed, "weights"), order (seed, "order", epoch),
augmentation (seed, "augment", step); equal to the bit on a CPU with the same threads and precision.

Not guaranteed: that the features represent what the classes do not need. The mean over positions
drops where a feature is, and another seed gives other distances: they are comparable under one
digest only. The training split was seen, so training images look better to it than held-out ones.
"""

import hashlib
import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vae.data.batches import Augmentation, Images, to_float
from vae.device import Machine
from vae.errors import UserError
from vae.io import read_tensors, tensor_bytes, write_bytes
from vae.models.blocks import ConvNormAct, GlobalAveragePool
from vae.rng import initialisation, numpy_generator
from vae.training.loop import DivergenceError, EpochMetrics, EpochReport, StepReport
from vae.training.schedules import Progress, cosine, with_warmup

WARMUP_EPOCHS = 0.5  # epochs


@dataclass(frozen=True)
class ClassifierShape:
    """Shape of the images, number of features and of classes."""

    channels: int
    height: int
    width: int
    features: int
    classes: int


def _layer(channels: int, out_channels: int, folded: bool) -> ConvNormAct:
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=folded)
    return ConvNormAct(convolution, out_channels, "none" if folded else "batch", "relu")


def _trunk(shape: ClassifierShape, folded: bool) -> nn.Sequential:
    halvings = max(2, round(math.log2(min(shape.height, shape.width) / 8)))
    layers: list[nn.Module] = []
    channels = shape.channels
    for remaining in range(halvings, 0, -1):
        out_channels = max(8, shape.features >> remaining)
        layers += [_layer(channels, out_channels, folded), nn.MaxPool2d(2)]
        channels = out_channels
    last = [_layer(n, shape.features, folded) for n in (channels, shape.features)]
    return nn.Sequential(*layers, *last, GlobalAveragePool())


class Classifier(nn.Module):
    """uint8 images (B, C, H, W) -> features (B, F); `head`: features -> logits (B, classes).

    Raises ValueError for images of another shape.
    """

    def __init__(self, shape: ClassifierShape, folded: bool) -> None:
        super().__init__()
        self.shape = shape
        self.trunk = _trunk(shape, folded)
        self.head = nn.Linear(shape.features, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        expected = (self.shape.channels, self.shape.height, self.shape.width)
        if images.dtype != torch.uint8 or images.shape[1:] != expected:
            raise ValueError(
                f"images are uint8 (B, {', '.join(map(str, expected))}), not {images.dtype}"
                f" {tuple(images.shape)}"
            )
        return self.trunk(to_float(images))

    def to_bytes(self) -> bytes:
        """The file that `save` writes: weights and shape."""
        return tensor_bytes(self.state_dict(), asdict(self.shape))

    def digest(self) -> str:
        """Hex SHA-256 of the saved file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def save(path: Path, classifier: Classifier) -> None:
    """Write a trained classifier as one safetensors file, whole or not at all."""
    write_bytes(path, classifier.to_bytes())


def load(path: Path) -> Classifier:
    """The classifier of a file, equal to the bit; UserError unless `save` wrote it."""
    tensors, metadata = read_tensors(path)
    try:
        with torch.device("meta"):
            classifier = Classifier(ClassifierShape(**metadata), folded=True)
        classifier.load_state_dict(tensors, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"not a classifier of this program ({error})",
            where=str(path),
            remedy="delete it and run again",
        ) from error
    return _freeze(classifier)


def _freeze(classifier: Classifier) -> Classifier:
    # The file has no memory layout, and sums round differently in another one.
    classifier.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return classifier


def _fold_batch_norm(classifier: Classifier) -> Classifier:
    """The frozen classifier with normalisations folded into their convolutions."""
    classifier.eval()
    for layer in classifier.trunk:
        if isinstance(layer, ConvNormAct):
            convolution, norm, _ = layer
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            layer[0], layer[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return _freeze(classifier)


# Training


@dataclass(frozen=True)
class LabelledImages:
    """Images of a split and their labels (N,), 0 ... classes - 1."""

    images: Images
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.images):
            raise ValueError(f"{len(self.labels)} labels for {len(self.images)} images")


@dataclass(frozen=True)
class ClassifierConfig:
    """Settings of a classifier's training; `lr` is the maximum."""

    seed: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    augmentation: Augmentation


def train_classifier(
    train: LabelledImages,
    valid: LabelledImages,
    config: ClassifierConfig,
    machine: Machine,
    *,
    feature_dim: int,
) -> Generator[StepReport | EpochReport, None, Classifier]:
    """Yields reports; the generator's value is the classifier, folded and frozen.

    A row has epoch, step, train_loss (nats per image) and train_accuracy, both means over the
    epoch's steps, and valid_accuracy. Raises DivergenceError when the loss is not finite.
    """
    channels, height, width = train.images.shape
    shape = ClassifierShape(
        channels, height, width, feature_dim, classes=int(train.labels.max()) + 1
    )
    with initialisation(config.seed):
        classifier = Classifier(shape, folded=False)
    classifier.to(machine.device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        classifier.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    for epoch in range(config.epochs):
        start = time.perf_counter()
        row = yield from _train_epoch(classifier, optimiser, train, config, machine, epoch)
        speed: float = train.images.steps(config.batch_size) * config.batch_size
        speed /= time.perf_counter() - start
        row["valid_accuracy"] = accuracy(classifier, valid, machine, config.batch_size)
        yield EpochReport(row, speed)
    return _fold_batch_norm(classifier)


def _train_epoch(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    train: LabelledImages,
    config: ClassifierConfig,
    machine: Machine,
    epoch: int,
) -> Generator[StepReport, None, EpochMetrics]:
    """One pass in the order of (seed, "order", epoch), without the last, smaller batch."""
    classifier.train()
    steps, size = train.images.steps(config.batch_size), config.batch_size
    order = numpy_generator(config.seed, "order", epoch).permutation(len(train.images))
    sums = torch.zeros(3, dtype=torch.float64, device=machine.device)  # loss, correct, images
    for index in range(steps):
        step, batch_indices = epoch * steps + index, order[index * size : (index + 1) * size]
        progress = Progress((step + 0.5) / steps, config.epochs)
        lr_factor = with_warmup(progress, partial(cosine, end_fraction=0.0), WARMUP_EPOCHS)
        optimiser.param_groups[0]["lr"] = config.lr * lr_factor
        images = config.augmentation(train.images.take(batch_indices), config.seed, step)
        labels = torch.from_numpy(train.labels[batch_indices]).to(images.device)
        sums += _train_step(classifier, optimiser, images, labels, machine)
        yield StepReport(epoch + 1, index + 1, steps)
    loss, correct, count = sums.tolist()
    if not math.isfinite(loss):
        raise DivergenceError(
            f"the classifier's loss is not finite in epoch {epoch + 1}",
            remedy="lower its learning rate",
        )
    row: EpochMetrics = {"epoch": epoch + 1, "step": (epoch + 1) * steps}
    return row | {"train_loss": loss / count, "train_accuracy": correct / count}


def _train_step(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    machine: Machine,
) -> Tensor:
    """One step; returns the batch's summed loss, correct answers and images (3,)."""
    with machine.autocast():
        logits = classifier.head(classifier(images)).float()
    loss = functional.cross_entropy(logits, labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    count = torch.tensor(float(len(labels)), device=labels.device)
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack([loss.detach() * count, correct, count]).double()


def accuracy(
    classifier: Classifier, split: LabelledImages, machine: Machine, batch_size: int = 256
) -> float:
    """Fraction of a split's images whose largest logit is that of their label."""
    classifier.eval()
    correct, start = 0, 0
    for batch in split.images.ordered_batches(batch_size):
        with torch.no_grad(), machine.autocast():
            predicted = classifier.head(classifier(batch)).argmax(1).cpu().numpy()
        correct += int((predicted == split.labels[start : start + len(batch)]).sum())
        start += len(batch)
    return correct / len(split.images)
