"""The classifier learns, repeats and is kept exactly; judges see what they should, or fail."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vae.data.batches import Augmentation, Images
from vae.device import Machine
from vae.errors import UserError
from vae.evaluation.metrics import feature_extractors
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
LESSON = ClassifierConfig(
    seed=0, epochs=8, batch_size=32, lr=3e-3, weight_decay=1e-2, augmentation=Augmentation()
)
Reports = Generator[StepReport | EpochReport, None, Classifier]


def digits() -> tuple[LabelledImages, LabelledImages]:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    parts = (slice(None, 1200), slice(1200, None))
    train, valid = (LabelledImages(Images(pixels[part], "cpu"), labels[part]) for part in parts)
    return train, valid


def whole(reports: Reports) -> tuple[list[StepReport | EpochReport], Classifier]:
    seen = []
    while True:
        try:
            seen.append(next(reports))
        except StopIteration as end:
            return seen, end.value


@pytest.fixture(scope="module")
def trained() -> tuple[list[StepReport | EpochReport], Classifier]:
    return whole(train_classifier(*digits(), LESSON, CPU, feature_dim=64))


def noise(*shape: int) -> np.ndarray:
    return numpy_generator(0, "pixels").integers(0, 256, shape, dtype=np.uint8)


# The classifier


def test_it_learns_digits_and_says_so(
    trained: tuple[list[StepReport | EpochReport], Classifier],
) -> None:
    reports, classifier = trained
    rows = [report.metrics for report in reports if isinstance(report, EpochReport)]
    steps = [report for report in reports if isinstance(report, StepReport)]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert (len(steps), rows[-1]["step"]) == (8 * 37, 8 * 37)
    assert rows[0]["train_loss"] > rows[-1]["train_loss"] > 0
    assert accuracy(classifier, digits()[1], CPU) > 0.95
    assert accuracy(classifier, digits()[1], CPU) == pytest.approx(rows[-1]["valid_accuracy"])


def test_it_repeats_bit_for_bit_and_another_seed_is_another_network() -> None:
    short = ClassifierConfig(3, 1, 64, 3e-3, 1e-2, Augmentation(crop_padding=1))
    once, twice = (
        whole(train_classifier(*digits(), short, CPU, feature_dim=16))[1].digest()
        for _ in range(2)
    )
    other = ClassifierConfig(4, 1, 64, 3e-3, 1e-2, Augmentation(crop_padding=1))
    assert once == twice
    assert whole(train_classifier(*digits(), other, CPU, feature_dim=16))[1].digest() != once


def test_a_file_gives_the_same_network_under_its_digest(
    trained: tuple[list[StepReport | EpochReport], Classifier], tmp_path: Path
) -> None:
    _, classifier = trained
    save(tmp_path / "features.safetensors", classifier)
    again = load(tmp_path / "features.safetensors")
    assert sha256_file(tmp_path / "features.safetensors") == classifier.digest()
    assert again.digest() == classifier.digest()
    images = torch.from_numpy(noise(5, 1, 8, 8))
    assert torch.equal(again(images), classifier(images))
    assert not any(p.requires_grad for p in again.parameters())


def test_other_files_are_refused(
    trained: tuple[list[StepReport | EpochReport], Classifier], tmp_path: Path
) -> None:
    path = tmp_path / "features.safetensors"
    save(path, trained[1])
    tensors, about = read_tensors(path)
    for strange in ({}, {**about, "features": 32}, {**about, "epoch": 3}):
        write_bytes(path, tensor_bytes(tensors, strange))
        with pytest.raises(UserError, match="no classifier of this program"):
            load(path)


def test_an_image_does_not_depend_on_the_others(
    trained: tuple[list[StepReport | EpochReport], Classifier],
) -> None:
    images = torch.from_numpy(noise(6, 1, 8, 8))
    alone = torch.cat([trained[1](image[None]) for image in images])
    torch.testing.assert_close(trained[1](images), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "convolutions"),
    [((1, 8, 8), 4), ((1, 28, 28), 4), ((3, 32, 32), 4), ((3, 64, 48), 5), ((3, 64, 64), 5)],
    ids=str,
)
def test_images_of_any_size_give_features_and_all_weights_learn(
    shape: tuple[int, int, int], convolutions: int
) -> None:
    with initialisation(0):
        classifier = Classifier(ClassifierShape(*shape, features=64, classes=3), folded=False)
    found = classifier(torch.from_numpy(noise(4, *shape)))
    assert found.shape == (4, 64)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in classifier.modules()) == convolutions
    classifier.head(found).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in classifier.parameters())
    with pytest.raises(ValueError, match="images are uint8"):
        classifier(torch.from_numpy(noise(4, *shape[:2], shape[2] + 8)))


def test_a_training_that_explodes_says_so() -> None:
    wild = ClassifierConfig(0, 1, 64, 1e38, 0.0, Augmentation())
    with pytest.raises(DivergenceError, match="the classifier's loss is no finite number"):
        whole(train_classifier(*digits(), wild, CPU, feature_dim=16))


def test_each_image_needs_a_label() -> None:
    with pytest.raises(ValueError, match="3 labels for 4 images"):
        LabelledImages(Images(noise(4, 1, 8, 8), "cpu"), np.zeros(3, np.int64))


# Judges


def test_the_in_domain_judge_is_the_classifier(
    trained: tuple[list[StepReport | EpochReport], Classifier],
) -> None:
    _, classifier = trained
    judge, valid = in_domain_extractor(classifier, CPU), digits()[1]
    pixels = valid.images.array
    found = extract(judge, pixels, batch_size=100)
    assert (found.shape, found.dtype, judge.feature_dim) == ((597, 64), np.float32, 64)
    np.testing.assert_allclose(found, extract(judge, pixels, batch_size=597), rtol=1e-5, atol=1e-5)
    logits = class_logits(judge, found)
    assert logits is not None
    assert (logits.argmax(1) == valid.labels).mean() > 0.95


def test_the_imagenet_judge_takes_grey_and_coloured_images_and_has_no_classes() -> None:
    judge = imagenet_extractor("efficientnet_lite2", CPU)
    grey = noise(2, 1, 28, 28)
    found = extract(judge, grey)
    assert (found.shape, judge.feature_dim, len(judge.digest)) == ((2, 1280), 1280, 64)
    np.testing.assert_allclose(extract(judge, grey.repeat(3, axis=1)), found, rtol=1e-4, atol=1e-4)
    assert class_logits(judge, found) is None


# The test before judging


def test_the_trained_judge_passes_and_the_table_says_how(
    trained: tuple[list[StepReport | EpochReport], Classifier],
) -> None:
    judge, (train, _) = in_domain_extractor(trained[1], CPU), digits()
    found = sensitivity_test(judge, train.images.array, 0, train.labels)
    assert found.passed
    table = found.table()
    assert [(row["fault"], row["strength"]) for row in table] == [
        *(("blur", sigma) for sigma in (0.5, 1, 2)),
        *(("noise", sigma) for sigma in (5, 15, 40)),
        *(("dropped", share) for share in (0.1, 0.3, 0.5)),
    ]
    assert found.n == 298
    assert all(row["seen"] for row in table if row["fault"] != "noise")
    assert found == sensitivity_test(judge, train.images.array, 0, train.labels)


@pytest.mark.parametrize(
    ("noise", "rises"),
    [((0.9, 1.1, 1.2), True), ((1.2, 1.1, 1.3), False), ((0.7, 0.8, 0.9), False)],
    ids=["a weak fault hides", "not monotone", "never above the floor"],
)
def test_a_distance_rises_by_strength_and_ends_above_the_floor(
    noise: tuple[float, ...], rises: bool
) -> None:
    distances = {
        "blur": dict(zip((0.5, 1.0, 2.0), (2.0, 3.0, 4.0), strict=True)),
        "noise": dict(zip((5.0, 15.0, 40.0), noise, strict=True)),
    }
    found = SensitivityResult(100, 1.0, distances)
    assert (found.detects("blur"), found.detects("noise"), found.passed) == (True, rises, rises)


class Blind:
    """A judge to whom all images are alike."""

    name, digest, feature_dim = "blind", "0" * 64, 2

    def __call__(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 2)

    def logits(self, features: Tensor) -> None:
        return None


def test_a_judge_that_does_not_see_faults_fails() -> None:
    found = sensitivity_test(Blind(), noise(400, 1, 8, 8), 0)
    assert not found.passed
    assert found.n == 100  # half of the half that is compared
    assert not any(row["seen"] for row in found.table())


def test_without_labels_the_brightest_images_are_dropped() -> None:
    pixels = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    kept = feature_extractors._subsets_without_modes(pixels, None, seed=0)
    assert {share: (len(index), index.max()) for share, index in kept.items()} == {
        0.1: (90, 89),
        0.3: (70, 69),
        0.5: (50, 49),
    }


def test_classes_are_dropped_one_after_the_other() -> None:
    labels = np.arange(100) % 10
    kept = feature_extractors._subsets_without_modes(noise(100, 1, 8, 8), labels, seed=0)
    left = [set(labels[index]) for index in kept.values()]
    assert list(kept) == [0.1, 0.3, 0.5]
    assert [len(classes) for classes in left] == [9, 7, 5]
    assert left[0] > left[1] > left[2]
    assert list(
        feature_extractors._subsets_without_modes(
            noise(4, 1, 8, 8), np.array([0, 1, 0, 1]), seed=0
        )
    ) == [0.5]


def test_a_judge_and_the_distances_work_together(
    trained: tuple[list[StepReport | EpochReport], Classifier],
) -> None:
    judge, (train, valid) = in_domain_extractor(trained[1], CPU), digits()
    real = reference(judge, extract(judge, valid.images.array[:500]))
    fake = extract(judge, train.images.array[:500])
    healthy = compare(real, fake, seed=0, logits=class_logits(judge, fake))
    blurred = extract(judge, feature_extractors._blur(train.images.array[:500], 1.0))
    ill = compare(real, blurred, seed=0)
    assert healthy.digest == trained[1].digest()
    assert ill.fd > 3 * healthy.fd
    assert ill.coverage < healthy.coverage
    assert healthy.classifier_score is not None
    assert healthy.classifier_score > 6


# torch-fidelity's extractors


class Tiny(torch.nn.Module):
    """What torch-fidelity asks of a registered extractor."""

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


def test_any_registered_extractor_judges_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "clip-vit-b-32", Tiny)
    judge = feature_extractors.torch_fidelity_extractor("clip-vit-b-32", Machine("cpu", "fp32", 1))
    grey = torch.randint(0, 256, (5, 1, 9, 9), dtype=torch.uint8)
    assert (judge.name, judge.feature_dim, len(judge.digest)) == ("clip-vit-b-32", 7, 64)
    torch.testing.assert_close(judge(grey), judge(grey.expand(-1, 3, -1, -1)))


def test_an_unknown_extractor_and_one_without_weights_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    with pytest.raises(UserError, match="no extractor 'clop'"):
        feature_extractors.torch_fidelity_extractor("clop", Machine("cpu", "fp32", 1))

    class Absent(Tiny):
        def __init__(self, *arguments: object, **options: object) -> None:
            raise OSError("no network")

    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "clip-rn50", Absent)
    with pytest.raises(UserError, match="clip-rn50 cannot be had"):
        feature_extractors.torch_fidelity_extractor("clip-rn50", Machine("cpu", "fp32", 1))
