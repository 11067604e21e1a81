"""What params.yaml may say: its sections, their keys, types and bounds.

A section with a `name` (or `kind`) is one of several classes, chosen by it, and holds only the
keys of that choice, so no key is idle. There are no defaults: every value stands in the file. A
field's docstring is its comment there: meaning and unit.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
_as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Pair = Annotated[tuple[Number, Number], _as_tuple]
Widths = Annotated[tuple[Count, ...], _as_tuple, Field(min_length=1)]
Activation = Literal["relu", "leaky_relu", "silu", "gelu"]
Normalisation = Literal["none", "batch", "group"]


class Section(BaseModel):
    """A mapping of the file: strict, frozen, no unknown keys; docstrings are its comments."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


# Data


class _Data(Section):
    root: str
    """folder of the raw data, from the project's folder on; VAE_DATA_ROOT overrides it"""
    valid_share: Share
    """share of the training images that is held out for validation"""
    seed: Index
    """of the split"""


class DigitsData(_Data):
    name: Literal["digits"]
    """digits | fashion_mnist | cifar10 | celeba | folder"""
    test_share: Share
    """share of all images that is held out for the test; this set has no official test split"""


class FashionMnistData(_Data):
    name: Literal["fashion_mnist"]
    """digits | fashion_mnist | cifar10 | celeba | folder"""


class Cifar10Data(_Data):
    name: Literal["cifar10"]
    """digits | fashion_mnist | cifar10 | celeba | folder"""


class CelebaData(Section):
    name: Literal["celeba"]
    """digits | fashion_mnist | cifar10 | celeba | folder; the official splits"""
    root: str
    """folder of the raw data, from the project's folder on; VAE_DATA_ROOT overrides it"""
    crop: Literal["offset_128", "centre_140", "centre_148"]
    """offset_128 = rows 45:173, columns 25:153; centre_140, centre_148 = central squares"""
    size: Annotated[int, Field(ge=8)]
    """pixels a side after resizing"""
    max_broken: Index
    """images that may be unreadable; each is named and skipped, one more is an error"""


class FolderData(_Data):
    name: Literal["folder"]
    """digits | fashion_mnist | cifar10 | celeba | folder"""
    path: str
    """directory of images, from `root` on (or absolute); its sub-folders are classes"""
    channels: Literal[1, 3]
    """1 = grey, 3 = colour; every image is converted"""
    centre_crop: bool
    """cut the largest central square out first"""
    size: Annotated[int, Field(ge=8)] | None
    """pixels a side after resizing; null keeps the size, which must then be one for all"""
    test_share: Share
    """share of all images that is held out for the test"""
    max_broken: Index
    """images that may be unreadable; each is named and skipped, one more is an error"""


Data = Annotated[
    DigitsData | FashionMnistData | Cifar10Data | CelebaData | FolderData,
    Field(discriminator="name"),
]


# Model


class ConvNetwork(Section):
    name: Literal["conv"]
    """conv = strided convolutions | residual = residual blocks between them"""
    widths: Widths
    """channels of each level; each level halves the image"""
    activation: Activation
    """relu | leaky_relu | silu | gelu"""
    normalisation: Normalisation
    """none | batch | group"""
    head: Literal["linear", "pool"]
    """features to mu and log_var: linear sees places, pool averages them away"""


class ResidualNetwork(Section):
    name: Literal["residual"]
    """conv = strided convolutions | residual = residual blocks between them"""
    widths: Widths
    """channels of each level; each level halves the image"""
    blocks: Index
    """residual blocks (GroupNorm, SiLU) a level"""
    head: Literal["linear", "pool"]
    """features to mu and log_var: linear sees places, pool averages them away"""


class VectorLatent(Section):
    kind: Literal["vector"]
    """vector = n numbers"""
    dim: Count
    """latent dimensions"""


class GaussianLikelihood(Section):
    name: Literal["gaussian"]
    """gaussian = a density around the decoded mean | bernoulli = ink probability of a pixel"""
    sigma: Positive | Literal["learned", "optimal"]
    """standard deviation, pixels in [0, 1]: a number | learned (one parameter) | optimal (RMSE)"""


class BernoulliLikelihood(Section):
    name: Literal["bernoulli"]
    """gaussian = a density around the decoded mean | bernoulli = ink probability of a pixel"""


class Model(Section):
    network: Annotated[ConvNetwork | ResidualNetwork, Field(discriminator="name")]
    """encoder and decoder"""
    latent: VectorLatent
    """shape of z"""
    log_var_range: Pair
    """the encoder's log variance is clamped to this (nats); bounds exp() in both directions"""
    likelihood: Annotated[
        GaussianLikelihood | BernoulliLikelihood,
        Field(discriminator="name"),
    ]
    """p(x | z)"""


# Objective


class ConstantBeta(Section):
    name: Literal["constant"]
    """constant | linear (from `start` to beta over `epochs`)"""


class LinearBeta(Section):
    name: Literal["linear"]
    """constant | linear (from `start` to beta over `epochs`)"""
    start: NotNegative
    """beta at the first step"""
    epochs: Positive
    """length of the warm-up"""


class Objective(Section):
    beta: NotNegative
    """weight of the rate in the trained objective D + beta R; 1 is the ELBO"""
    beta_schedule: Annotated[ConstantBeta | LinearBeta, Field(discriminator="name")]
    """how beta gets to its value"""


# Training


class _Adam(Section):
    lr: Positive
    """learning rate, its highest value"""
    betas: Annotated[tuple[Share, Share], _as_tuple]
    """decay of the running mean and square of the gradient"""
    eps: Positive
    """added to the root of the running square"""
    weight_decay: NotNegative
    """adam: added to the gradient; adamw: taken off the weights directly"""


class Adam(_Adam):
    name: Literal["adam"]
    """adam | adamw"""


class AdamW(_Adam):
    name: Literal["adamw"]
    """adam | adamw"""


class ConstantRate(Section):
    name: Literal["constant"]
    """constant | cosine (down to `end_share`) | plateau (cut when validation stalls)"""


class CosineRate(Section):
    name: Literal["cosine"]
    """constant | cosine (down to `end_share`) | plateau (cut when validation stalls)"""
    end_share: Annotated[float, Field(ge=0, le=1)]
    """learning rate at the last step, as a share of lr"""


class PlateauRate(Section):
    name: Literal["plateau"]
    """constant | cosine (down to `end_share`) | plateau (cut when validation stalls)"""
    patience: Index
    """epochs without a new best validation objective (at the final beta) before a cut"""
    factor: Share
    """of each cut"""


class Augment(Section):
    flip: bool
    """mirror half of the training images, left to right"""
    crop_padding: Index
    """pixels of black border around a training image before a random crop to its size"""


class Train(Section):
    seed: Index
    """of weights, order, augmentation and noise"""
    epochs: Count
    """passes over the training split"""
    batch_size: Count
    """images a step"""
    optimiser: Annotated[Adam | AdamW, Field(discriminator="name")]
    """update rule"""
    lr_schedule: Annotated[ConstantRate | CosineRate | PlateauRate, Field(discriminator="name")]
    """learning rate over time"""
    clip_norm: Positive | None
    """longest gradient allowed, its norm in nats a unit of weight; null = any"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None
    """the shipped weights are a running mean with this decay a step; null = the raw weights"""
    augment: Augment
    """random changes of training images"""
    data_on: Literal["auto", "device", "disk"]
    """where batches come from: device = all in memory, disk = memory-mapped; auto = what fits"""
    device: Literal["auto", "cpu", "cuda"]
    """auto takes CUDA where there is one"""
    precision: Literal["auto", "fp32", "bf16"]
    """of convolutions and products; auto takes bf16 where the hardware has it"""
    threads: Count | None
    """CPU threads; null = all cores; other counts round differently"""
    init_from: str | None
    """weights file of another run to start from; null = random"""
    sheet_every: Count
    """epochs between the sample and reconstruction sheets"""


class Checkpoints(Section):
    keep_every: Count
    """epochs between the checkpoints that are kept beside best and last"""
    keep_runs: Count
    """trainings whose resume state is kept; the oldest go first"""


# Judging


class Evaluate(Section):
    seed: Index
    """of the noise of the test encodings"""
    batch_size: Count
    """images at a time; changes memory and speed only"""
    device: Literal["auto", "cpu", "cuda"]
    """auto takes CUDA where there is one"""


class Gallery(Section):
    seed: Index
    """of samples and of the choice of images"""
    samples: Count
    """images on a sample sheet"""
    reconstructions: Count
    """test images shown beside their reconstructions"""
    temperatures: Annotated[tuple[Positive, ...], _as_tuple, Field(min_length=1)]
    """z = t * eps for each of these"""
    interpolations: Count
    """pairs of test images, half within a class and half across classes"""
    traversals: Count
    """latent dimensions that are walked, those of the highest rate first"""
    steps: Annotated[int, Field(ge=2)]
    """images of an interpolation or a traversal"""
    reach: Positive
    """traversals go from -reach to +reach standard deviations of the prior"""


class Tracking(Section):
    enabled: bool
    """false sends nothing to MLflow; the files are complete either way"""
    uri: str | None
    """MLflow server or store; null = mlflow.db here; MLFLOW_TRACKING_URI overrides it"""
    experiment: str
    """name of the MLflow experiment"""


class Params(Section):
    data: Data
    """what is learned"""
    model: Model
    """what learns it"""
    objective: Objective
    """what is minimised: D + beta R, nats an image"""
    train: Train
    """how it is minimised"""
    checkpoints: Checkpoints
    """what is kept on the way; changes no result"""
    evaluate: Evaluate
    """numbers on the test split"""
    gallery: Gallery
    """pictures"""
    tracking: Tracking
    """where MLflow keeps its rows; changes no result"""
