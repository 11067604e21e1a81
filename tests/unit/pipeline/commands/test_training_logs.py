"""Logs in many formats: tables and texts, several runs in a file, and files that are refused."""

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands import log_columns, training_logs
from vae.errors import UserError
from vae.evaluation.diagnosis.engine import apply_rules
from vae.evaluation.diagnosis.inputs import DiagnosisInputs


def read(folder: Path, text: str, chosen: str = "") -> list[training_logs.TrainingLog]:
    path = folder / "log.txt"
    path.write_text(text)
    return training_logs.read_logs(path, log_columns.parse_column_map(chosen))


def epochs(log: training_logs.TrainingLog, column: str) -> dict[int, Any]:
    return {row["epoch"]: row[column] for row in log.rows if column in row}


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss,recon_loss,kl_loss\n1,9.5,9,0.5\n2,7.25,7,0.25\n",
        "epoch;Total Loss;Reconstruction;KLD\n1;9.5;9;0.5\n2;7.25;7;0.25\n",
        "Epoch\ttrain/loss\ttrain/bce\ttrain/kld\n1\t9.5\t9\t0.5\n2\t7.25\t7\t0.25\n",
        "loss, rec, kl\n9.5, 9, 0.5\n7.25, 7, 0.25\n",
        "\ufeffepoch,totalLoss,reconLoss,klDivergence\n1,9.5,9,.5\n2,7.25,7,.25\n",
        "Epoch 1, Total Loss: 9.5, Recon Loss: 9, KL Loss: 0.5\n"
        "Epoch 2, Total Loss: 7.25, Recon Loss: 7, KL Loss: 0.25\n",
        "Epoch 1/2\n10/10 [====] - 5s 5ms/step - loss: 9.5 - recon_loss: 9 - kl_loss: 0.5\n"
        "Epoch 2/2\n10/10 [====] - 5s 5ms/step - loss: 7.25 - recon_loss: 7 - kl_loss: .25\n",
        "epochs: 2, batch size: 64\n"
        "2024-01-02 10:00:01 INFO Epoch [1/2] loss=9.5 recon=9.0 kl=5e-1 lr=1e-3\n"
        "saved model.pt\n"
        "2024-01-02 10:09:01 INFO Epoch [2/2] loss=7.25 recon=7.0 kl=2.5e-1 lr=1e-3\n",
        "{'epoch': 1, 'loss': 9.5, 'recon': 9, 'kl': 0.5}\n"
        "{'epoch': 2, 'loss': 7.25, 'recon': 7, 'kl': 0.25}\n",
        '{"epoch": 1, "loss": 9.5, "mse": 9, "kl": 0.5}\n'
        '{"epoch": 2, "loss": 7.25, "mse": 7, "kl": 0.25}\n',
        "Epoch 1 | Train Loss 9.5 | Recon 9 | KL 0.5\n"
        "Epoch 2 | Train Loss 7.25 | Recon 7 | KL 0.25\n",
        "Total loss 9.5 recon loss 9 KL loss 0.5\nTotal loss 7.25 recon loss 7 KL loss 0.25\n",
        "Epoch 1\n  total: 9.5\n  recon: 9\n  kl: 0.5\n\n"
        "Epoch 2\n  total: 7.25\n  recon: 7\n  kl: 0.25\n",
    ],
)
def test_the_same_two_epochs_in_many_hands(tmp_path: Path, text: str) -> None:
    (log,) = read(tmp_path, text)
    assert epochs(log, "train_objective") == {1: 9.5, 2: 7.25}
    assert epochs(log, "train_distortion") == {1: 9, 2: 7}
    assert epochs(log, "train_rate") == {1: 0.5, 2: 0.25}


def test_batches_leave_the_epochs_last_word(tmp_path: Path) -> None:
    (log,) = read(
        tmp_path,
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 547.1\n"
        "Train Epoch: 1 [640/60000 (1%)]\tLoss: 311.0\n"
        "====> Epoch: 1 Average loss: 1,164.1\n"
        "====> Test set loss: 127.1\n"
        "Train Epoch: 2 [0/60000 (0%)]\tLoss: 120.4\n"
        "====> Epoch: 2 Average loss: 121.9\n"
        "====> Test set loss: 115.8\n",
    )
    assert epochs(log, "train_objective") == {1: 1164.1, 2: 121.9}
    assert epochs(log, "valid_objective") == {1: 127.1, 2: 115.8}


def test_runs_part_where_epochs_start_again(tmp_path: Path) -> None:
    table = "epoch,loss\n1,3\n2,2\n1,5\n2,4\nepoch,loss\n1,7\n"
    text = "Epoch 1 loss: 3\nEpoch 2 loss: 2\n\nEpoch 1 loss: 5\nEpoch 2 loss: 4\n"
    text += "# third\nEpoch 1 loss: 7"
    for content, last in ((table, "run 3"), (text, "third")):
        logs = read(tmp_path, content)
        assert [epochs(log, "train_objective") for log in logs] == [
            {1: 3, 2: 2},
            {1: 5, 2: 4},
            {1: 7},
        ]
        assert logs[-1].name == last


def test_runs_of_a_single_epoch_part_at_headings(tmp_path: Path) -> None:
    logs = read(tmp_path, "latent 64\nEpoch 50 loss: 3\nlatent 128\nEpoch 50 loss: 2\n")
    assert [(log.latent, epochs(log, "train_objective")) for log in logs] == [
        (64, {50: 3}),
        (128, {50: 2}),
    ]


def test_a_remark_between_epochs_parts_nothing(tmp_path: Path) -> None:
    (log,) = read(
        tmp_path, "Epoch 1 loss: 3\nSaving checkpoint:\nEpoch 2 loss: 2\n...\nEpoch 9 loss: 1\n"
    )
    assert epochs(log, "train_objective") == {1: 3, 2: 2, 9: 1}
    assert training_logs.list_missing_epochs(log) == "3-8"


def test_nan_is_read_and_found(tmp_path: Path) -> None:
    for text in (
        "epoch,loss,kl\n1,3,1\n2,nan,inf\n",
        "Epoch 1 loss: 3 kl: 1\nEpoch 2 loss: nan kl: inf\n",
    ):
        (log,) = read(tmp_path, text)
        assert math.isnan(log.rows[1]["train_objective"])
        assert [
            f.name for f in apply_rules(DiagnosisInputs(history=log.rows, nats=False)).findings
        ] == ["not_a_number"]


def test_names_of_its_own_are_mapped(tmp_path: Path) -> None:
    text = "it,A,B,C,D\n1,9.5,9,0.5,8\n2,7.25,7,0.25,6\n"
    (log,) = read(tmp_path, text, "epoch=it, total=A, recon=B, kl=C, valid_total=D")
    assert epochs(log, "train_objective") == {1: 9.5, 2: 7.25}
    assert epochs(log, "valid_objective") == {1: 8, 2: 6}
    (log,) = read(tmp_path, "epoch,loss,elbo\n1,5,9.5\n", "total=elbo")
    assert epochs(log, "train_objective") == {1: 9.5}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Val. Total Loss", "valid_objective"),
        ("val/kl", "valid_rate"),
        ("valKLDivergence", None),
        ("validation_recon_loss", "valid_distortion"),
        ("test loss", "valid_objective"),
        ("avg_train_loss", "train_objective"),
        ("latent_loss", "train_rate"),
        ("latent dim", None),
        ("logvar mean", "train_log_var_mean"),
        ("mu_mean", "train_mu_mean"),
        ("mean", None),
        ("kl weight", "beta"),
        ("learning_rate", "lr"),
        ("valid_final_objective", "valid_final_objective"),
        ("accuracy", None),
        ("time", None),
    ],
)
def test_what_people_call_it(name: str, column: str | None) -> None:
    assert log_columns.find_column(name) == column


@pytest.mark.parametrize(
    ("text", "resolution"),
    [("0.000002", 5e-7), ("1.5e-6", 5e-8), ("12", 0.5), ("0.00", 0.005), ("3.", 0.5)],
)
def test_the_last_printed_digit(text: str, resolution: float) -> None:
    assert training_logs._half_last_digit(text) == pytest.approx(resolution)


# Errors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"\x93NUMPY\xff\xfe\x00", "it is not a text file"),
        (b"hello world\n", "no losses of epochs found"),
        (b"epoch,accuracy\n1,0.5\n", "`accuracy`"),
        (b"epoch,loss\n", "no losses of epochs found"),
    ],
)
def test_an_unreadable_log_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        training_logs.read_logs(path, {})
    assert caught.value.remedy


@pytest.mark.parametrize(("name", "words"), [("none", "no such file"), (".", "Is a directory")])
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        training_logs.read_logs(tmp_path / name, {})


@pytest.mark.parametrize("text", ["loss", "nonsense=loss", "kl="])
def test_a_wrong_map_lists_the_columns(text: str) -> None:
    with pytest.raises(UserError, match=r"columns: epoch, .*total, recon, kl"):
        log_columns.parse_column_map(text)


def test_a_line_without_numbers_is_read_in_no_time(tmp_path: Path) -> None:
    (log,) = read(tmp_path, f"{'a' * 200_000}\n{'word ' * 40_000}\nEpoch 1 loss: 2\n")
    assert epochs(log, "train_objective") == {1: 2}
