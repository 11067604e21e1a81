"""The classifier learns, repeats and is saved exactly; extractors pass the sensitivity test."""

from collections.abc import Generator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from vae.data.batches import Augmentation, Images
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.metrics import feature_extractors, fidelity
from vae.evaluation.metrics.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierShape,
    LabelledImages,
    accuracy,
    load,
    save,
    train_classifier,
)
from vae.evaluation.metrics.feature_extractors import (
    NetworkExtractor,
    SensitivityResult,
    class_logits,
    extract,
    imagenet_extractor,
    in_domain_extractor,
    reference,
    sensitivity_test,
)
from vae.evaluation.metrics.fidelity import compare
from vae.io import read_tensors, sha256_file, tensor_bytes, write_bytes
from vae.rng import initialisation, numpy_generator
from vae.training.loop import DivergenceError, EpochReport, StepReport

CPU = Machine("cpu", "fp32", 1)
CONFIG = ClassifierConfig(
    seed=0, epochs=8, batch_size=32, lr=3e-3, weight_decay=1e-2, augmentation=Augmentation()
)
Reports = Generator[StepReport | EpochReport, None, Classifier]
Trained = tuple[list[StepReport | EpochReport], Classifier]


def digits() -> tuple[LabelledImages, LabelledImages]:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    ranges = (slice(None, 1200), slice(1200, None))
    train, valid = (LabelledImages(Images(pixels[rows], "cpu"), labels[rows]) for rows in ranges)
    return train, valid


def run(reports: Reports) -> Trained:
    reports_so_far = []
    while True:
        try:
            reports_so_far.append(next(reports))
        except StopIteration as end:
            return reports_so_far, end.value


@pytest.fixture(scope="module")
def trained() -> Trained:
    return run(train_classifier(*digits(), CONFIG, CPU, feature_dim=64))


def noise(*shape: int) -> np.ndarray:
    return numpy_generator(0, "pixels").integers(0, 256, shape, dtype=np.uint8)


# The classifier


def test_it_learns_digits_and_reports_every_epoch(trained: Trained) -> None:
    reports, classifier = trained
    rows = [report.metrics for report in reports if isinstance(report, EpochReport)]
    steps = [report for report in reports if isinstance(report, StepReport)]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert (len(steps), rows[-1]["step"]) == (8 * 37, 8 * 37)
    assert rows[0]["train_loss"] > rows[-1]["train_loss"] > 0
    assert accuracy(classifier, digits()[1], CPU) > 0.95
    assert accuracy(classifier, digits()[1], CPU) == pytest.approx(rows[-1]["valid_accuracy"])


def test_it_repeats_to_the_bit_and_depends_on_the_seed() -> None:
    def digest(seed: int) -> str:
        config = ClassifierConfig(seed, 1, 64, 3e-3, 1e-2, Augmentation(crop_padding=1))
        return run(train_classifier(*digits(), config, CPU, feature_dim=16))[1].digest()

    first = digest(3)
    assert digest(3) == first
    assert digest(4) != first


def test_a_file_gives_the_same_network_and_digest_and_others_are_refused(
    trained: Trained, tmp_path: Path
) -> None:
    path, classifier = tmp_path / "features.safetensors", trained[1]
    save(path, classifier)
    again = load(path)
    assert sha256_file(path) == classifier.digest() == again.digest()
    images = torch.from_numpy(noise(5, 1, 8, 8))
    assert torch.equal(again(images), classifier(images))
    assert not any(p.requires_grad for p in again.parameters())
    tensors, metadata = read_tensors(path)
    for other in ({}, {**metadata, "features": 32}, {**metadata, "epoch": 3}):
        write_bytes(path, tensor_bytes(tensors, other))
        with pytest.raises(UserError, match="not a classifier of this program"):
            load(path)


def test_features_do_not_depend_on_other_images(trained: Trained) -> None:
    images = torch.from_numpy(noise(6, 1, 8, 8))
    single = torch.cat([trained[1](image[None]) for image in images])
    torch.testing.assert_close(trained[1](images), single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "convolutions"),
    [((1, 8, 8), 4), ((1, 28, 28), 4), ((3, 32, 32), 4), ((3, 64, 48), 5), ((3, 64, 64), 5)],
    ids=str,
)
def test_images_of_any_size_give_features_and_all_weights_have_a_gradient(
    shape: tuple[int, int, int], convolutions: int
) -> None:
    with initialisation(0):
        classifier = Classifier(ClassifierShape(*shape, features=64, classes=3), folded=False)
    result = classifier(torch.from_numpy(noise(4, *shape)))
    assert result.shape == (4, 64)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in classifier.modules()) == convolutions
    classifier.head(result).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in classifier.parameters())
    with pytest.raises(ValueError, match="images are uint8"):
        classifier(torch.from_numpy(noise(4, *shape[:2], shape[2] + 8)))


def test_trainings_that_diverge_and_images_without_labels_raise() -> None:
    config = ClassifierConfig(0, 1, 64, 1e38, 0.0, Augmentation())
    with pytest.raises(DivergenceError, match="the classifier's loss is not finite"):
        run(train_classifier(*digits(), config, CPU, feature_dim=16))
    with pytest.raises(ValueError, match="3 labels for 4 images"):
        LabelledImages(Images(noise(4, 1, 8, 8), "cpu"), np.zeros(3, np.int64))


# Extractors


def test_the_in_domain_extractor_has_the_logits_of_the_classifier(trained: Trained) -> None:
    _, classifier = trained
    extractor, valid = in_domain_extractor(classifier, CPU), digits()[1]
    pixels = valid.images.array
    result = extract(extractor, pixels, batch_size=100)
    assert (result.shape, result.dtype, extractor.feature_dim) == ((597, 64), np.float32, 64)
    np.testing.assert_allclose(
        result, extract(extractor, pixels, batch_size=597), rtol=1e-5, atol=1e-5
    )
    logits = class_logits(extractor, result)
    assert logits is not None
    assert (logits.argmax(1) == valid.labels).mean() > 0.95


def test_the_imagenet_extractor_takes_grey_and_coloured_images_and_has_no_classes() -> None:
    extractor = imagenet_extractor("efficientnet_lite2", CPU)
    grey = noise(2, 1, 28, 28)
    result = extract(extractor, grey)
    assert (result.shape, extractor.feature_dim, len(extractor.digest)) == ((2, 1280), 1280, 64)
    np.testing.assert_allclose(
        extract(extractor, grey.repeat(3, axis=1)), result, rtol=1e-4, atol=1e-4
    )
    assert class_logits(extractor, result) is None


# Sensitivity test


def test_the_trained_extractor_passes_and_repeats(trained: Trained) -> None:
    extractor, (train, _) = in_domain_extractor(trained[1], CPU), digits()
    result = sensitivity_test(extractor, train.images.array, 0, train.labels)
    assert result.passed
    strengths = {fault: tuple(by_strength) for fault, by_strength in result.distances.items()}
    assert strengths == {"blur": (0.5, 1, 2), "noise": (5, 15, 40), "dropped": (0.1, 0.3, 0.5)}
    assert result.n == 298
    for fault in ("blur", "dropped"):
        assert min(result.distances[fault].values()) > result.floor
    assert result == sensitivity_test(extractor, train.images.array, 0, train.labels)


@pytest.mark.parametrize(
    ("noise", "rises"),
    [((0.9, 1.1, 1.2), True), ((1.2, 1.1, 1.3), False), ((0.7, 0.8, 0.9), False)],
    ids=["weakest below the floor", "not monotone", "never above the floor"],
)
def test_a_distance_rises_by_strength_and_ends_above_the_floor(
    noise: tuple[float, ...], rises: bool
) -> None:
    distances = {
        "blur": dict(zip((0.5, 1.0, 2.0), (2.0, 3.0, 4.0), strict=True)),
        "noise": dict(zip((5.0, 15.0, 40.0), noise, strict=True)),
    }
    result = SensitivityResult(100, 1.0, distances)
    assert (result.detects("blur"), result.detects("noise"), result.passed) == (True, rises, rises)


def test_an_extractor_without_sensitivity_fails() -> None:
    constant = NetworkExtractor(
        "constant", "0" * 64, 2, CPU, lambda x: torch.zeros(len(x), 2), None
    )
    result = sensitivity_test(constant, noise(400, 1, 8, 8), 0)
    assert not result.passed
    assert result.n == 100  # half of the half that is compared


def test_without_labels_the_brightest_images_are_dropped() -> None:
    pixels = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    subsets = feature_extractors._subsets_without_modes(pixels, None, seed=0)
    ends = {fraction: (len(index), index.max()) for fraction, index in subsets.items()}
    assert ends == {0.1: (90, 89), 0.3: (70, 69), 0.5: (50, 49)}


def test_dropped_classes_are_nested() -> None:
    labels = np.arange(100) % 10
    subsets = feature_extractors._subsets_without_modes(noise(100, 1, 8, 8), labels, seed=0)
    left = [set(labels[index]) for index in subsets.values()]
    assert list(subsets) == [0.1, 0.3, 0.5]
    assert [len(classes) for classes in left] == [9, 7, 5]
    assert left[0] > left[1] > left[2]
    assert list(
        feature_extractors._subsets_without_modes(noise(4, 1, 8, 8), np.array([0, 1, 0, 1]), seed=0)
    ) == [0.5]


def test_blur_raises_the_distance_under_the_trained_extractor(trained: Trained) -> None:
    extractor, (train, valid) = in_domain_extractor(trained[1], CPU), digits()
    real = reference(extractor, extract(extractor, valid.images.array[:500]))
    fake = extract(extractor, train.images.array[:500])
    healthy = compare(real, fake, seed=0, logits=class_logits(extractor, fake))
    blurred = extract(extractor, feature_extractors._blur(train.images.array[:500], 1.0))
    worse = compare(real, blurred, seed=0)
    assert healthy.digest == trained[1].digest()
    assert worse.fd > 3 * healthy.fd
    assert worse.coverage < healthy.coverage
    assert healthy.classifier_score is not None
    assert healthy.classifier_score > 6


# torch-fidelity's extractors


class Tiny(torch.nn.Module):
    """The interface of an extractor in torch-fidelity's registry."""

    def __init__(self, name: str, layers: list[str], **options: object) -> None:
        super().__init__()
        self.layers = layers
        self.weights = torch.nn.Parameter(torch.ones(3 * 4, 7))

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return f"{metric} layer"

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2)
        return (pooled.flatten(1) @ self.weights,)


def test_registered_extractors_are_available_by_name_and_others_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "clip-vit-b-32", Tiny)
    extractor = feature_extractors.torch_fidelity_extractor("clip-vit-b-32", CPU)
    grey = torch.randint(0, 256, (5, 1, 9, 9), dtype=torch.uint8)
    properties = (extractor.name, extractor.feature_dim, len(extractor.digest))
    assert properties == ("clip-vit-b-32", 7, 64)
    torch.testing.assert_close(extractor(grey), extractor(grey.expand(-1, 3, -1, -1)))

    class Absent(Tiny):
        def __init__(self, *arguments: object, **options: object) -> None:
            raise OSError("no network")

    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "clip-rn50", Absent)
    for name, message in (
        ("clop", "no extractor 'clop'"),
        ("clip-rn50", "clip-rn50 is not available"),
    ):
        with pytest.raises(UserError, match=message):
            feature_extractors.torch_fidelity_extractor(name, CPU)


def test_missing_inception_weights_are_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages of a failed download are those of test_imagenet."""
    requests: list[str] = []

    def refuse(address: str, path: str, digest: str, progress: bool) -> None:
        requests.extend((address, path, digest))
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError) as caught:
        feature_extractors.inception_file()
    address, path, digest = requests
    assert digest == feature_extractors.INCEPTION_SHA256
    assert digest.startswith(Path(address).stem.rpartition("-")[2])
    assert str(caught.value).startswith(f"{path}: no weights of Inception")
    assert "set evaluate.inception_weights" in str(caught.value)
    assert "out of evaluate.feature_extractors" in str(caught.value)
    Path(path).write_bytes(b"half of it")
    with pytest.raises(UserError, match=f"{path}: not Inception's weights .* delete it"):
        feature_extractors.inception_file()


def test_inception_uses_grey_images_as_three_equal_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = fidelity.torch_fidelity_module(
        "feature_extractor_inceptionv3"
    ).FeatureExtractorInceptionV3
    with monkeypatch.context() as patched:  # random weights; no test downloads
        patched.setattr(network, "load_state_dict", lambda *_: None)
        patched.setattr(torch, "load", lambda *_, **__: None)
        built = network("x", ["2048"], feature_extractor_weights_path="")
    path = tmp_path / "inception.pth"
    torch.save(built.state_dict(), path)
    digest = sha256_file(path)
    monkeypatch.setattr(feature_extractors, "INCEPTION_SHA256", digest)
    extractor = feature_extractors.inception_extractor(path, CPU)
    grey = torch.from_numpy(numpy_generator(0, "grey").integers(0, 256, (2, 1, 28, 28), np.uint8))
    features, three = extractor(grey), grey.expand(-1, 3, -1, -1)
    properties = (extractor.name, extractor.digest, extractor.feature_dim)
    assert properties == (feature_extractors.INCEPTION, digest, 2048)
    torch.testing.assert_close(features, extractor(three))
    torch.testing.assert_close(features, built(three)[0])
    logits = extractor.logits(features)
    assert logits is not None
    assert logits.shape == (2, 1008)
