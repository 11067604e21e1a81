"""Images become upright, opaque, 8-bit arrays; splits are disjoint and fair; spectra are exact."""

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae.data import sources, spectrum
from vae.data.preparation import (
    CROPS,
    BrokenImages,
    Recipe,
    build_spec,
    decode_images,
    split_dataset,
    stratified_mask,
    write_images,
    write_split,
)
from vae.data.readers import RawDataset, Split
from vae.errors import UserError

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def colours(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The pixels of (3, H, W) in reading order."""
    return [tuple(pixel) for pixel in pixels.reshape(3, -1).T.tolist()]


def quarters() -> Image.Image:
    """Red, green / blue, black."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, BLACK])
    return image


# One image


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, BLACK]),
        (2, [GREEN, RED, BLACK, BLUE]),
        (3, [BLACK, BLUE, GREEN, RED]),
        (6, [BLUE, RED, BLACK, GREEN]),
        (8, [GREEN, BLACK, RED, BLUE]),
    ],
)
def test_exif_orientation_is_honoured(
    tmp_path: Path, orientation: int, expected: list[tuple[int, ...]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(tmp_path / "a.png", exif=exif)
    assert colours(Recipe(3)(tmp_path / "a.png")) == expected


def test_an_upright_jpeg_comes_out_rotated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "a.jpg", exif=exif)
    assert Recipe(3)(tmp_path / "a.jpg").shape == (3, 32, 16)


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    quarters().quantize(4).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert file.mode == "P"
    assert colours(Recipe(3)(tmp_path / "a.png")) == [RED, GREEN, BLUE, BLACK]


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    image = quarters().convert("RGBA")
    image.putalpha(Image.frombytes("L", (2, 2), bytes([255, 0, 128, 255])))
    image.save(tmp_path / "a.png")
    assert colours(Recipe(3)(tmp_path / "a.png")) == [RED, BLACK, (0, 0, 128), BLACK]


def test_a_transparent_palette_entry_lies_over_black(tmp_path: Path) -> None:
    image = quarters().quantize(4)
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    assert colours(Recipe(3)(tmp_path / "a.png")) == [BLACK, GREEN, BLUE, BLACK]


def test_sixteen_bits_become_eight_by_rounding(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257], [32768, 65278, 65406, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    expected = [round(level / 257) for level in levels.reshape(-1).tolist()]
    assert expected[:3] == [0, 0, 1]
    assert Recipe(1)(tmp_path / "a.png").reshape(-1).tolist() == expected


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    difference = Recipe(3)(tmp_path / "a.jpg").astype(int) - np.array(RED)[:, None, None]
    assert np.abs(difference).max() <= 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_channels_asked_for(tmp_path: Path, mode: str, channels: int) -> None:
    quarters().convert(mode).save(tmp_path / "a.png")
    assert Recipe(channels)(tmp_path / "a.png").shape == (channels, 2, 2)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        ("offset_128", slice(45, 173), slice(25, 153)),
        ("centre_140", slice(39, 179), slice(19, 159)),
        ("centre_148", slice(35, 183), slice(15, 163)),
    ],
)
def test_celeba_crops(tmp_path: Path, crop: str, rows: slice, columns: slice) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cut = Recipe(3, crop)(tmp_path / "a.png")
    np.testing.assert_array_equal(cut, pixels[rows, columns].transpose(2, 0, 1))
    with pytest.raises(ValueError, match="178x218"):
        CROPS[crop](218, 178)


def test_the_square_is_central(tmp_path: Path) -> None:
    pixels = np.arange(5 * 9, dtype=np.uint8).reshape(5, 9)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(Recipe(1, "square")(tmp_path / "a.png")[0], pixels[:, 2:7])


def test_shrinking_averages(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    small = Recipe(1, size=8)(tmp_path / "a.png").astype(int)
    assert small.shape == (1, 8, 8)
    assert np.abs(small - 127.5).max() < 8  # taking every eighth pixel would give 0 or 255


# Many images


def make_files(folder: Path, count: int) -> Split:
    folder.mkdir()
    for number in range(count):
        Image.new("L", (4, 4), number).save(folder / f"{number:02}.png")
    paths = sorted(folder.iterdir())
    return Split([(path.name, path) for path in paths], np.arange(count))


def write(
    folder: Path, split: Split, max_broken: int, recipe: Recipe | None = None
) -> BrokenImages:
    tolerance = BrokenImages(max_broken)
    images = decode_images(split, recipe or Recipe(1), workers=3)
    write_split(folder, "train", split, images, tolerance)
    return tolerance


def test_threads_keep_the_order_of_images_and_labels(tmp_path: Path) -> None:
    write(tmp_path, make_files(tmp_path / "raw", 40), 0)
    images = np.load(tmp_path / "train.npy")
    assert images.shape == (40, 1, 4, 4)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.load(tmp_path / "train_labels.npy"))


def test_a_dropped_reader_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    images = decode_images(make_files(tmp_path / "raw", 40), Recipe(1), workers=3)
    next(images)
    assert threading.active_count() == before


def test_broken_images_are_skipped_named_and_counted(tmp_path: Path) -> None:
    split = make_files(tmp_path / "raw", 10)
    (tmp_path / "raw" / "03.png").write_bytes(b"no image")
    whole = (tmp_path / "raw" / "07.png").read_bytes()
    (tmp_path / "raw" / "07.png").write_bytes(whole[: len(whole) // 2])
    tolerance = write(tmp_path, split, 2)
    assert set(tolerance.reasons) == {"03.png", "07.png"}
    assert not any(str(tmp_path) in reason for reason in tolerance.reasons.values())
    left = [0, 1, 2, 4, 5, 6, 8, 9]
    assert np.load(tmp_path / "train.npy")[:, 0, 0, 0].tolist() == left
    assert np.load(tmp_path / "train_labels.npy").tolist() == left


def test_one_broken_image_too_many_is_an_error(tmp_path: Path) -> None:
    split = make_files(tmp_path / "raw", 10)
    (tmp_path / "raw" / "03.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 unreadable images: 03\.png") as caught:
        write(tmp_path, split, 0)
    assert "data.max_broken" in str(caught.value)
    assert not (tmp_path / "train.npy").exists()


def test_a_truncated_jpeg_is_broken(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    ((name, image),) = decode_images(Split([("a.jpg", path)]), Recipe(3))
    assert name == "a.jpg"
    assert image == "OSError"


def test_different_sizes_need_a_size(tmp_path: Path) -> None:
    split = make_files(tmp_path / "raw", 5)
    Image.new("L", (6, 4)).save(tmp_path / "raw" / "02.png")
    with pytest.raises(UserError, match=r"02\.png is 6x4 pixels, the first image is 4x4"):
        write(tmp_path, split, 0)
    write(tmp_path, split, 0, Recipe(1, size=4))
    assert len(np.load(tmp_path / "train.npy")) == 5


def test_a_split_needs_one_readable_image(tmp_path: Path) -> None:
    split = make_files(tmp_path / "raw", 1)
    (tmp_path / "raw" / "00.png").write_bytes(b"")
    with pytest.raises(UserError, match="no readable image"):
        write(tmp_path, split, 5)


@pytest.mark.parametrize("count", [0, 1, 9, 1000])
def test_a_streamed_file_is_the_file_that_numpy_writes(tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 5), np.uint8)
    assert write_images(tmp_path / "a.npy", iter(images)) == count
    np.save(tmp_path / "b.npy", images if count else np.zeros((0, 0, 0, 0), np.uint8))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


# Splits


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.15, 0.5, 0.99])
def test_every_class_gives_its_fraction_within_one_image(fraction: float) -> None:
    labels = np.random.default_rng(0).choice(7, 1000, p=np.arange(1, 8) / 28)
    mask = stratified_mask(labels, fraction, np.random.default_rng(1))
    assert mask.sum() == round(1000 * fraction)
    for label in range(7):
        own = labels == label
        assert abs(mask[own].sum() - fraction * own.sum()) < 1


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_side_is_ever_empty(fraction: float) -> None:
    mask = stratified_mask(np.zeros(10, int), fraction, np.random.default_rng(0))
    assert 0 < mask.sum() < 10


def numbered(count: int) -> Split:
    """Images that hold their own number."""
    pixels = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(pixels, np.arange(count) % 3)


def numbers(split: Split) -> list[int]:
    assert isinstance(split.images, np.ndarray)
    return split.images.reshape(-1).tolist()


def test_splits_are_disjoint_whole_and_sized() -> None:
    splits = split_dataset(RawDataset({"all": numbered(200)}), 0.1, 0.25, seed=0)
    assert [len(split) for split in splits.values()] == [135, 15, 50]
    everything = [number for split in splits.values() for number in numbers(split)]
    assert sorted(everything) == list(range(200))
    for split in splits.values():
        assert numbers(split) == sorted(numbers(split))
        np.testing.assert_array_equal(split.labels, np.array(numbers(split)) % 3)


def test_a_split_is_a_function_of_its_seed() -> None:
    collection = RawDataset({"all": numbered(200)})
    first, same, other = (split_dataset(collection, 0.1, 0.25, seed)["valid"] for seed in (0, 0, 1))
    assert numbers(first) == numbers(same) != numbers(other)


def test_official_splits_are_passed_on() -> None:
    train, valid, test = numbered(90), numbered(30), numbered(60)
    splits = split_dataset(RawDataset({"train": train, "test": test}), 0.1, 0.5, seed=0)
    assert splits["test"] is test
    assert sorted(numbers(splits["train"]) + numbers(splits["valid"])) == list(range(90))
    official = {"train": train, "valid": valid, "test": test}
    assert split_dataset(RawDataset(official), 0.1, 0.5, seed=0) == official


def test_two_images_are_too_few() -> None:
    with pytest.raises(UserError, match="fewer than three images"):
        split_dataset(RawDataset({"all": numbered(2)}), 0.1, 0.1, seed=0)


def test_the_spec_says_what_the_files_are(tmp_path: Path) -> None:
    split = make_files(tmp_path / "raw", 6)
    write(tmp_path, split, 0)
    images = np.load(tmp_path / "train.npy")
    spec = build_spec(tmp_path, {"train": images}, {"name": "folder"}, ["a"], 6, {})
    assert spec["shape"] == [1, 4, 4]
    assert spec["counts"] == {"train": 6}
    assert set(spec["sha256"]) == {"train.npy", "train_labels.npy"}
    content = (tmp_path / "train.npy").read_bytes()
    assert spec["sha256"]["train.npy"] == hashlib.sha256(content).hexdigest()
    (tmp_path / "train.npy").write_bytes(content[:-1] + b"\xff")
    changed = build_spec(tmp_path, {"train": images}, {"name": "folder"}, ["a"], 6, {})
    assert changed["digest"] != spec["digest"]


# Statistics and spectrum


def some_images(count: int = 50, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    generator = np.random.default_rng(0)
    scale = generator.integers(1, 256, shape)
    return (generator.random((count, *shape)) * scale).astype(np.uint8)


def oracle_spectrum(images: np.ndarray) -> np.ndarray:
    rows = images.reshape(len(images), -1) / 255
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / len(images)
    return np.pad(values, (0, rows.shape[1] - len(values)))


def test_statistics_agree_with_numpy() -> None:
    images = some_images()
    statistics, x = spectrum.pixel_statistics(images), images / 255
    assert statistics["mean"] == pytest.approx(x.mean())
    assert statistics["std"] == pytest.approx(x.std())
    assert statistics["channel_mean"] == pytest.approx(x.mean((0, 2, 3)))
    assert statistics["channel_std"] == pytest.approx(x.std((0, 2, 3)))
    assert statistics["total_variance"] == pytest.approx(x.var(0).sum())
    assert statistics["constant_mse"] == pytest.approx(((x - x.mean(0)) ** 2).mean())


def test_equal_images_have_no_variance() -> None:
    statistics = spectrum.pixel_statistics(np.full((3, 3, 5, 7), 77, np.uint8))
    assert statistics["channel_std"] == [0, 0, 0]
    assert statistics["total_variance"] == statistics["std"] == 0
    assert statistics["mean"] == pytest.approx(77 / 255)


def test_levels_are_counted() -> None:
    images = some_images()
    expected = np.bincount(images.reshape(-1), minlength=256)
    np.testing.assert_array_equal(spectrum.level_counts(images), expected)


@pytest.mark.parametrize(("count", "way"), [(20, "covariance"), (200, "covariance"), (20, "gram")])
def test_the_spectrum_is_that_of_a_singular_value_decomposition(
    count: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_images(count)
    monkeypatch.setattr(spectrum, "CHUNK_BYTES", 8 * 60 * 7)  # seven images at a time
    if way == "gram":
        monkeypatch.setattr(spectrum, "MAX_DIRECT_SIZE", 59)
        monkeypatch.setattr(spectrum, "_covariance_spectrum", None)
        monkeypatch.setattr(spectrum, "_randomised_spectrum", None)
    values = spectrum.principal_spectrum(images, 60)
    assert values.shape == (60,)
    np.testing.assert_allclose(values, oracle_spectrum(images)[:60], atol=1e-12)
    np.testing.assert_allclose(values.sum(), (images / 255).var(0).sum())


def test_the_random_spectrum_is_close_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_images(300, (1, 16, 16))
    exact = spectrum.principal_spectrum(images, 20)
    monkeypatch.setattr(spectrum, "MAX_DIRECT_SIZE", 100)
    values = spectrum.principal_spectrum(images, 20)
    np.testing.assert_allclose(values, exact, rtol=0.02)
    assert (values <= exact * (1 + 1e-9)).all()
    np.testing.assert_array_equal(values, spectrum.principal_spectrum(images, 20))


@pytest.mark.real_data("cifar10")
def test_the_spectrum_of_cifar10_is_the_known_one(real_data_root: Path) -> None:
    split = sources.decode("cifar10", sources.find("cifar10", real_data_root)).splits["train"]
    assert isinstance(split.images, np.ndarray)
    values = spectrum.principal_spectrum(split.images, 3072)
    counts = [int((values > level).sum()) for level in (1, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)]
    assert counts == [22, 36, 66, 129, 206, 356, 512]
    assert values.sum() == pytest.approx(190.4, abs=0.05)


@pytest.mark.real_data("celeba")
def test_real_faces_decode_alike_with_any_number_of_threads(real_data_root: Path) -> None:
    files = sources.find("celeba", real_data_root)
    split = Split(sources.decode("celeba", files).splits["test"].images[:64])

    def decode(workers: int) -> list[np.ndarray | str]:
        return [image for _, image in decode_images(split, Recipe(3, "offset_128", 64), workers)]

    np.testing.assert_array_equal(decode(1), decode(4))
    assert np.array(decode(1)).shape == (64, 3, 64, 64)
