"""train, predict, evaluate and few-shot as a user meets them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import SPLITS, clouds, write_csv, write_example, write_records

from cxr_embed.cli import evaluate, few_shot, predict, train
from cxr_embed.cli import main as cli_main
from cxr_embed.elements import CONFIG_NAME

HEAD_FILES = {
    "model.keras", "head.json", "metrics.json", "predictions.csv", "unmatched_labels.csv",
    "training_curve.png", "roc.png", "pr.png", "calibration.png", "command.txt",
}  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = ("--num_epochs=3", "--hidden_layer_sizes=8,4")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_example(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a network of two heads, and a linear probe of the first."""
    folder = tmp_path_factory.mktemp("trained")
    write_example(folder)
    data = (f"--data_dir={folder}/data/outputs", f"--labels_csv={folder}/data/labels.csv",
            "--test_split_name=test")  # fmt: skip
    both = "--head_name=AIRSPACE_OPACITY,EFFUSION"
    assert cli_main.main(["train", *data, both, *QUICK, f"--output_dir={folder}/network"]) == 0
    one = ("--head_name=AIRSPACE_OPACITY", "--hidden_layer_sizes=")
    assert cli_main.main(["train", *data, *one, f"--output_path={folder}/linear"]) == 0
    return folder


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_published_command(tmp_path: Path) -> None:
    """As its page says it, from any folder, in a process of its own."""
    write_example(tmp_path)
    command = [
        sys.executable, "-m", "train", "--train_split_name", "train", "--tune_split_name", "tune",
        "--labels_csv", "./data/labels.csv", "--head_name", "AIRSPACE_OPACITY",
        "--data_dir", "./data/outputs/", "--num_epochs", "100",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    output = tmp_path / "heads/AIRSPACE_OPACITY"
    assert {path.name for path in output.iterdir()} == HEAD_FILES
    found = json.loads((output / "metrics.json").read_text())
    assert set(found) == {"AIRSPACE_OPACITY", "unmatched_labels", "unlabelled_embeddings"}
    assert set(found["AIRSPACE_OPACITY"]) == {"train", "tune"}
    assert set(found["AIRSPACE_OPACITY"]["tune"]) == {"auroc", "auprc", "n", "n_positive"}
    assert found["AIRSPACE_OPACITY"]["tune"]["auroc"] > 0.8
    assert "Traceback" not in done.stderr
    assert "cuda" not in done.stderr.lower()


def test_help_needs_no_tensorflow() -> None:
    code = (
        "import sys; from cxr_embed.cli import main\n"
        "for verb in ('train', 'predict', 'evaluate', 'few-shot'): main.main([verb, '--help'])\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'matplotlib', 'apache_beam', 'scipy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for module in (train, predict, evaluate, few_shot):
        for name in module.make_flags():
            assert name == "flagfile" or f"--{name}" in done.stdout


def test_what_training_writes(trained: Path) -> None:
    output = trained / "network"
    assert {path.name for path in output.iterdir()} == HEAD_FILES
    head = json.loads((output / "head.json").read_text())
    assert head["heads"] == ["AIRSPACE_OPACITY", "EFFUSION"]
    assert head["embedding_size"] == 24
    assert head["command"].startswith("cxr-embed train --data_dir=")
    assert (output / "command.txt").read_text() == head["command"] + "\n"
    figures = json.loads((output / "metrics.json").read_text())
    assert set(figures["EFFUSION"]) == {"train", "tune", "test"}
    rows = _table(output / "predictions.csv")
    assert list(rows[0]) == [
        "dicom_id", "image_id", "split", "group", "AIRSPACE_OPACITY_label",
        "AIRSPACE_OPACITY_probability", "EFFUSION_label", "EFFUSION_probability",
    ]  # fmt: skip
    assert rows[0]["image_id"] == "gs://bucket/files/p0/im00000.dcm"
    assert rows[0]["EFFUSION_label"] == ""
    assert [row["group"] for row in rows[:4]] == ["0", "0", "0", "1"]
    assert "p0" not in {row["group"] for row in rows}
    known = sum(row["EFFUSION_label"] != "" and row["split"] == "test" for row in rows)
    assert figures["EFFUSION"]["test"]["n"] == known


def test_two_runs_give_the_same_predictions(example: Path, do: Any) -> None:
    found = []
    for name in ("a", "b"):
        ran = do("train", "--data_dir=data/outputs", "--labels_csv=data/labels.csv", *QUICK,
                 "--head_name=AIRSPACE_OPACITY", f"--output_dir={name}")  # fmt: skip
        assert ran.status == 0
        found.append((example / name / "predictions.csv").read_bytes())
    assert found[0] == found[1]


def test_predict_gives_what_training_gave(trained: Path, do: Any, tmp_path: Path) -> None:
    for name in ("network", "linear"):
        output = tmp_path / f"{name}.csv"
        ran = do("predict", f"--head={trained}/{name}", f"--input_path={trained}/data/outputs",
                 f"--output_path={output}")  # fmt: skip
        assert ran.status == 0
        assert "does not record how the embeddings were made" in ran.err
        old = {row["dicom_id"]: row for row in _table(trained / name / "predictions.csv")}
        rows = _table(output)
        assert len(rows) == 300
        for row in rows:
            assert float(row["AIRSPACE_OPACITY_probability"]) == pytest.approx(
                float(old[row["dicom_id"]]["AIRSPACE_OPACITY_probability"]), abs=1e-6
            )
    assert do("predict", f"--head={trained}/network", f"--input_path={trained}/data/outputs",
              f"--output_path={output}").status == 2  # fmt: skip


def test_predict_gives_classes_at_a_chosen_rate(trained: Path, do: Any, tmp_path: Path) -> None:
    """The head carries thresholds from the tune split, which reach there what was asked for."""
    common = ("predict", f"--head={trained}/linear", f"--input_path={trained}/data/outputs")
    old = {row["dicom_id"]: row for row in _table(trained / "linear/predictions.csv")}
    for rate, label in (("sensitivity", "1"), ("specificity", "0")):
        output = tmp_path / f"{rate}.csv"
        ran = do(*common, f"--output_path={output}", f"--{rate}=0.953")
        assert ran.status == 0
        assert "AIRSPACE_OPACITY: positive from a probability of 0." in ran.err
        of_label = [
            row["AIRSPACE_OPACITY_class"] == label
            for row in _table(output)
            if old[row["dicom_id"]]["split"] == "tune"
            and old[row["dicom_id"]]["AIRSPACE_OPACITY_label"] == label
        ]
        assert 0.953 <= np.mean(of_label) < 1
    both = do(*common, f"--output_path={tmp_path}/b.csv", "--sensitivity=1", "--specificity=1")
    assert (both.status, "pass one of --sensitivity" in both.err) == (2, True)
    assert do(*common, f"--output_path={tmp_path}/b.csv", "--sensitivity=2").status == 2


def test_a_head_without_thresholds_gives_no_classes(trained: Path, do: Any, tmp_path: Path) -> None:
    shutil.copytree(trained / "linear", tmp_path / "old")
    head = json.loads((tmp_path / "old/head.json").read_text())
    del head["thresholds"], head["calibration"]  # as earlier versions wrote it
    (tmp_path / "old/head.json").write_text(json.dumps(head))
    common = ("predict", f"--head={tmp_path}/old", f"--input_path={trained}/data/outputs",
              f"--output_path={tmp_path}/p.csv")  # fmt: skip
    ran = do(*common, "--sensitivity=0.9")
    assert (ran.status, "train it again" in ran.err) == (2, True)
    assert do(*common).status == 0


def test_calibration_is_inside_the_head_and_can_be_left_out(
    trained: Path, do: Any, tmp_path: Path
) -> None:
    ran = do("train", f"--data_dir={trained}/data/outputs", "--test_split_name=test",
             f"--labels_csv={trained}/data/labels.csv", "--head_name=AIRSPACE_OPACITY",
             "--hidden_layer_sizes=", "--nocalibrate",
             f"--output_dir={tmp_path}/plain")  # fmt: skip
    assert ran.status == 0
    plain = json.loads((tmp_path / "plain/head.json").read_text())
    head = json.loads((trained / "linear/head.json").read_text())
    assert plain["calibration"] == {}
    by = head["calibration"]["AIRSPACE_OPACITY"]
    old, new = (
        np.array([float(row["AIRSPACE_OPACITY_probability"]) for row in _table(path)])
        for path in (tmp_path / "plain/predictions.csv", trained / "linear/predictions.csv")
    )
    wanted = by["slope"] * np.log(old / (1 - old)) + by["offset"]
    np.testing.assert_allclose(np.log(new / (1 - new)), wanted, atol=1e-3)
    figures = [
        json.loads(path.read_text())["AIRSPACE_OPACITY"]["test"]["auroc"]
        for path in (tmp_path / "plain/metrics.json", trained / "linear/metrics.json")
    ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-9)


def test_predict_refuses_embeddings_of_another_kind(tmp_path: Path, do: Any) -> None:
    write_example(tmp_path, n=90)
    config = tmp_path / "data/outputs" / CONFIG_NAME
    config.write_text(json.dumps({"rendering": "dicom", "model_sha256": "1", "embedding_size": 24}))
    data = f"--data_dir={tmp_path}/data/outputs"
    made = do("train", data, f"--labels_csv={tmp_path}/data/labels.csv", *QUICK,
              "--head_name=AIRSPACE_OPACITY", f"--output_dir={tmp_path}/head")  # fmt: skip
    assert made.status == 0
    predicting = ("predict", f"--head={tmp_path}/head", data, "--overwrite",
                  f"--output_path={tmp_path}/p.csv")  # fmt: skip
    same = do(*predicting)
    assert (same.status, same.err) == (0, "")
    config.write_text(json.dumps({"rendering": "dicom", "model_sha256": "2", "embedding_size": 24}))
    refused = do(*predicting)
    assert refused.status == 2
    assert "made with other settings" in refused.err
    assert "(model_sha256): pass --allow_other_embeddings" in refused.err
    allowed = do(*predicting, "--allow_other_embeddings")
    assert allowed.status == 0
    assert "warning: " in allowed.err
    write_records(tmp_path / "small", np.zeros((3, 8), np.float32))
    wrong = do(*predicting[:2], f"--input_path={tmp_path}/small", f"--output_path={tmp_path}/q.csv")
    assert wrong.status == 2
    assert "embeddings of 8 floats; this head takes 24" in wrong.err


def test_evaluate_from_a_training_run(trained: Path, do: Any, tmp_path: Path) -> None:
    ran = do("evaluate", f"--predictions={trained}/network", f"--output_path={tmp_path}/e",
             f"--compare_to={trained}/linear", f"--labels_csv={trained}/data/labels.csv",
             "--subgroup_column=sex", "--num_bootstrap=50")  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    assert {path.name for path in (tmp_path / "e").iterdir()} == {
        "evaluation.json", "evaluation.csv", "subgroups.csv", "roc.png", "pr.png",
        "calibration.png", "decision_curve.png", "decision_curve.csv", "command.txt",
    }  # fmt: skip
    found = json.loads((tmp_path / "e/evaluation.json").read_text())
    before = found["EFFUSION"]["before_calibration"]
    assert before["brier"]["value"] != found["EFFUSION"]["brier"]["value"]
    assert "; before calibration" in ran.out
    assert found["EFFUSION"]["patients"] == 20
    assert set(found["AIRSPACE_OPACITY"]["subgroups"]["sex"]) == {"F", "M"}
    assert 0 <= found["AIRSPACE_OPACITY"]["comparison"]["delong"]["p"] <= 1
    figures = json.loads((trained / "network/metrics.json").read_text())
    assert found["EFFUSION"]["auroc"]["value"] == pytest.approx(
        figures["EFFUSION"]["test"]["auroc"], abs=1e-9
    )
    assert "AIRSPACE_OPACITY, split test: 60 images" in ran.out


def test_evaluate_applies_a_head_and_takes_labels(trained: Path, do: Any) -> None:
    common = ("--num_bootstrap=0", "--operating_points=threshold=0.5")
    one = do("evaluate", f"--predictions={trained}/linear", *common)
    other = do("evaluate", f"--head={trained}/linear", f"--input_path={trained}/data/outputs",
               f"--labels_csv={trained}/data/labels.csv", *common)  # fmt: skip
    assert (one.status, other.status) == (0, 0)
    assert one.out == other.out


def test_few_shot(trained: Path, do: Any, tmp_path: Path) -> None:
    ran = do("few-shot", f"--input_path={trained}/data/outputs", "--head_name=AIRSPACE_OPACITY",
             f"--labels_csv={trained}/data/labels.csv", f"--output_path={tmp_path}/f",
             "--max_per_class=8", "--num_seeds=2", "--hidden_layer_sizes=8,4",
             "--num_bootstrap=20")  # fmt: skip
    assert ran.status == 0
    rows = _table(tmp_path / "f/few_shot.csv")
    assert list(rows[0]) == ["head", "classifier", "n_per_class", "seed", "auroc"]
    assert {row["n_per_class"] for row in rows} == {"1", "2", "4", "8"}
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        "few_shot.csv", "few_shot_summary.csv", "few_shot.png", "command.txt",
    }  # fmt: skip


def test_mimic_s_own_files(tmp_path: Path, do: Any) -> None:
    values, labels = clouds(90, 8, 2.0)
    write_records(tmp_path / "out", values, prefix="files")
    splits = [SPLITS[row // 3 % 5].replace("tune", "validate") for row in range(90)]
    ids = [{"dicom_id": f"im{row:05d}", "study_id": row, "subject_id": row // 3}
           for row in range(90)]  # fmt: skip
    prefix = f"{tmp_path}/mimic-cxr-2.0.0-"
    write_csv(
        Path(f"{prefix}split.csv"), [i | {"split": s} for i, s in zip(ids, splits, strict=True)]
    )
    write_csv(Path(f"{prefix}metadata.csv"), [i | {"ViewPosition": "PA"} for i in ids])
    write_csv(
        Path(f"{prefix}chexpert.csv"),
        [{"subject_id": row // 3, "study_id": row, "Pleural Effusion": float(labels[row]) or -1.0}
         for row in range(90)],
    )  # fmt: skip
    common = ("train", f"--data_dir={tmp_path}/out", f"--mimic_dir={tmp_path}", *QUICK,
              "--head_name=Pleural Effusion")  # fmt: skip
    unsure = do(*common, f"--output_dir={tmp_path}/a")
    assert unsure.status == 2  # every negative is unsure, so that nothing is left of them
    assert "positive and 0 negative images of Pleural Effusion" in unsure.err
    ran = do(*common, f"--output_dir={tmp_path}/a", "--uncertain_labels=negative")
    assert ran.status == 0
    found = json.loads((tmp_path / "a/metrics.json").read_text())
    assert set(found["Pleural Effusion"]) == {"train", "validate"}


def test_unmatched_labels_are_counted_and_listed(example: Path, do: Any) -> None:
    rows = _table(example / "data/labels.csv")
    rows[0]["image_id"] = "lost.dcm"
    write_csv(example / "data/labels.csv", rows)
    ran = do("train", "--data_dir=data/outputs", "--labels_csv=data/labels.csv", *QUICK,
             "--head_name=AIRSPACE_OPACITY", "--output_dir=h")  # fmt: skip
    assert ran.status == 0
    assert "warning: labels of images that have no embedding: 1, such as lost.dcm" in ran.err
    found = json.loads((example / "h/metrics.json").read_text())
    assert (found["unmatched_labels"], found["unlabelled_embeddings"]) == (1, 1)
    assert _table(example / "h/unmatched_labels.csv") == [{"line": "2", "image_id": "lost.dcm"}]


def test_another_run_s_output_is_not_overwritten(example: Path, do: Any) -> None:
    (example / "h").mkdir()
    (example / "h/notes.txt").write_text("mine")
    command = ("train", "--data_dir=data/outputs", "--labels_csv=data/labels.csv", *QUICK,
               "--head_name=AIRSPACE_OPACITY", "--output_dir=h")  # fmt: skip
    refused = do(*command)
    assert refused.status == 2
    assert "h is not empty (it holds notes.txt): pass --overwrite" in refused.err
    assert do(*command, "--overwrite").status == 0
    assert (example / "h/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("train", "--head_name is missing"),
        ("train --head_name=A", "--data_dir is missing"),
        ("train --head_name=A --data_dir=data/outputs", "one of --labels_csv and --mimic_dir"),
        ("train --head_name=A --data_dir=x --input_path=y", "mean the same"),
        ("train --head_name=A {data} --hidden_layer_sizes=3,x", "--hidden_layer_sizes x: numbers"),
        ("train --head_name=A {data} --learning_rate=0", "--learning_rate must be above 0"),
        ("train --head_name=A {data} --batch_size=1", "--batch_size 1: batch norm"),
        ("train --head_name=A {data} --test_split_name=tune", "must have different names"),
        ("train --head_name=A {data}", "has no column A; its columns are image_id"),
        ("train --head_name=unmatched_labels {data}", "that name is taken"),
        ("train --head_name=EFFUSION {data} --tune_split_name=dev", "no labelled image is in the"),
        ("train --head_name=EFFUSION {data} --output_dir=/proc/none", "/proc"),
        ("train --head_nam=A", "unknown flag --head_nam; did you mean --head_name?"),
        ("predict", "--head is missing"),
        ("predict --head=none --input_path=data/outputs --output_path=p.csv", "no trained head"),
        ("predict --head=none --input_path=data/outputs --output_path=p", "must end in .csv"),
        ("evaluate", "one of --predictions and --head"),
        ("evaluate --predictions=none.csv", "none.csv does not exist"),
        ("evaluate --predictions=data/labels.csv", "is no table of predictions"),
        ("evaluate --predictions=p.csv --operating_points=f1", "operating point f1: one of"),
        ("few-shot --head_name=A {data} --classifiers=svm", "one or more of linear,network"),
        ("few-shot --head_name=EFFUSION {data} --test_split_name=dev", "no labelled image is in"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    example: Path, do: Any, arguments: str, complaint: str
) -> None:
    data = "--data_dir=data/outputs --labels_csv=data/labels.csv"
    ran = do(*arguments.format(data=data).split())
    assert ran.status == 2, ran.err
    assert complaint in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert {path.name for path in example.iterdir()} == {"data"}


def test_a_damaged_head(trained: Path, do: Any, tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.mkdir()
    (head / "head.json").write_bytes((trained / "network/head.json").read_bytes())
    command = ("predict", f"--head={head}", f"--input_path={trained}/data/outputs",
               f"--output_path={tmp_path}/p.csv")  # fmt: skip
    assert "model.keras is missing" in do(*command).err
    (head / "model.keras").write_bytes((trained / "network/model.keras").read_bytes()[:3000])
    assert "model.keras cannot be loaded" in do(*command).err
    (head / "model.keras").write_bytes((trained / "linear/model.keras").read_bytes())
    assert "takes 24 floats and gives 1, head.json gives 24 and 2" in do(*command).err
    (head / "head.json").write_text("{}")
    ran = do(*command)
    assert (ran.status, "head.json cannot be read" in ran.err) == (2, True)


def test_the_verbs_are_listed(do: Any) -> None:
    out = do().out
    for verb in ("train", "predict", "evaluate", "few-shot"):
        assert f"\n  {verb} " in out


def test_python_m_train_works_from_the_repository_root() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train", "--help"], cwd=ROOT, capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": ""}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0
    assert "python -m train --labels_csv" in done.stdout


def test_sets_and_labels_that_came_later(tmp_path: Path, do: Any) -> None:
    """Two folders of records and two CSVs are one set; each figure is there by source, too."""
    write_example(tmp_path)
    old, new = tmp_path / "data/outputs", tmp_path / "data/later"
    new.mkdir()
    for path in sorted(old.iterdir())[200:]:
        path.rename(new / path.name)
    shutil.copy(sorted(old.iterdir())[0], new)  # in both: counted once
    rows = _table(tmp_path / "data/labels.csv")
    for name, part in (("first", rows[:150]), ("second", rows[150:] + rows[:1])):
        write_csv(tmp_path / f"data/{name}.csv", part)
    data = (f"--data_dir={old}", f"--data_dir={new}", f"--labels_csv={tmp_path}/data/first.csv",
            f"--labels_csv={tmp_path}/data/second.csv", "--head_name=AIRSPACE_OPACITY")  # fmt: skip
    ran = do("train", *data, "--test_split_name=test", "--hidden_layer_sizes=",
             f"--output_dir={tmp_path}/h")  # fmt: skip
    assert ran.status == 0, ran.err
    predictions = _table(tmp_path / "h/predictions.csv")
    assert len(predictions) == 300
    assert [row["source"] for row in predictions].count(str(new)) == 100
    figures = json.loads((tmp_path / "h/metrics.json").read_text())
    assert (figures["unmatched_labels"], figures["unlabelled_embeddings"]) == (0, 0)
    parts = _table(tmp_path / "h/metrics_by_source.csv")
    assert {(row["source"], row["split"]) for row in parts} == {
        (str(one), split) for one in (old, new) for split in ("train", "tune", "test")
    }
    tested = [int(row["n"]) for row in parts if row["split"] == "test"]
    assert sum(tested) == figures["AIRSPACE_OPACITY"]["test"]["n"]

    ran = do("evaluate", f"--predictions={tmp_path}/h", "--num_bootstrap=0")
    assert ran.status == 0
    assert "AUROC by source" in ran.out
    ran = do("predict", f"--head={tmp_path}/h", f"--data_dir={new}", f"--data_dir={old}",
             f"--output_path={tmp_path}/p.csv")  # fmt: skip
    assert ran.status == 0
    assert _table(tmp_path / "p.csv")[0]["source"] == str(new)

    rows[0]["AIRSPACE_OPACITY"] = str(1 - int(rows[0]["AIRSPACE_OPACITY"]))
    write_csv(tmp_path / "data/second.csv", rows[150:] + rows[:1])
    ran = do("train", *data, f"--output_dir={tmp_path}/i")
    assert ran.status == 2
    assert "first.csv line 2 and" in ran.err
    assert "second.csv line 152 are different rows of the same image" in ran.err
