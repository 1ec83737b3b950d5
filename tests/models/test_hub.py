"""Models on the Hugging Face Hub, with the real client and a stand-in for the service."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_dicom
from hub_server import LARGE, Hub, Repository, files_below
from huggingface_hub import constants
from onnx_graphs import save_graph
from running import manifest, records, run_here

from cxr_embed import models
from cxr_embed.cli import inspect, search
from cxr_embed.cli import main as cli_main
from cxr_embed.errors import MachineFault, UsageError
from cxr_embed.models import fetch, hub
from cxr_embed.models.sharing import SharedModel
from cxr_embed.pipeline import EmbedRadiographs

NAME = "some-lab/encoder"
PATH = f"hf://{NAME}"
FILES = {
    "README.md": b"card",
    "a/saved_model.pb": b"graph",
    "a/variables/variables.index": b"weights" * LARGE,
    "ab/other": b"not below a",
    "pytorch_model.bin": b"huge",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with Hub().open() as hub_:
        yield hub_


@pytest.fixture(autouse=True)
def repository(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Repository:
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    server.status = server.cut = 0
    server.requests.clear()
    server.paths.clear()
    return server.add(NAME, FILES)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("hf://a/b", ("a/b", None, "")),
        ("hf://a/b/", ("a/b", None, "")),
        ("hf://a/b@v1.0", ("a/b", "v1.0", "")),
        ("hf://a/b/c/d", ("a/b", None, "c/d")),
        ("hf://a.x/b_y@main/c/model.onnx", ("a.x/b_y", "main", "c/model.onnx")),
        ("hf://a/b@refs%2Fpr%2F1/c", ("a/b", "refs/pr/1", "c")),
    ],
)
def test_an_address_has_a_repository_a_revision_and_a_folder(path: str, expected: Any) -> None:
    assert hub.parse(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "hf://", "hf://gpt2", "hf://a/b@", "hf://a/b@v1@v2", "hf://a/b@/c", "hf:///a/b", "hf://a//b",
        "hf://a/b/../c", "hf://a/b/c/..", "hf://a/b//c", "hf://datasets/a/b", "hf://a/b c", "hf://a/b\0",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="pass hf://owner/name"):
        fetch.check_address(path)


@pytest.mark.parametrize(
    "path", ["hf://hf_abcdefghijklmnopqrst@a/b", "hf://a/b@hf_abcdefghijklmnopqrst"]
)
def test_a_token_in_an_address_is_not_repeated(path: str) -> None:
    with pytest.raises(UsageError, match="contains a token") as raised:
        fetch.check_address(path)
    assert "abcdefghij" not in str(raised.value)


def test_only_what_is_below_the_folder_is_fetched_and_once(server: Hub) -> None:
    path = f"{PATH}/a"
    commit = fetch.revision_of(path)
    assert not fetch.is_here(path, commit)
    folder = Path(fetch.local_copy(path, commit))
    assert files_below(folder, "a/") == {k: v for k, v in FILES.items() if k.startswith("a/")}
    assert set(server.paths) == {name for name in FILES if name.startswith("a/")}
    assert fetch.is_here(path, commit)
    asked = len(server.requests)
    assert fetch.local_copy(path, commit) == str(folder)
    assert len(server.requests) == asked


def test_a_chain_is_fetched_without_the_folders_it_does_not_name(server: Hub) -> None:
    fetch.local_copy(PATH, fetch.revision_of(PATH), ["ab"])
    assert server.paths == ["ab/other"]


def test_the_revision_is_looked_up_once_and_then_stays(server: Hub, repository: Repository) -> None:
    first = fetch.revision_of(PATH)
    assert first == repository.refs["main"]
    newer = repository.commit({"a/saved_model.pb": b"newer"})
    assert Path(fetch.local_copy(PATH, first), "a/saved_model.pb").read_bytes() == b"graph"
    assert fetch.revision_of(PATH) == newer
    pinned = fetch.pinned(f"{PATH}/a", first)
    server.requests.clear()
    assert pinned == f"{PATH}@{first}/a"
    assert fetch.revision_of(pinned) == first
    assert server.requests == []


def test_a_download_that_breaks_off_is_resumed(server: Hub) -> None:
    server.cut = LARGE // 2
    folder = Path(fetch.local_copy(PATH, fetch.revision_of(PATH)))
    assert files_below(folder) == FILES
    assert server.paths.count("a/variables/variables.index") == 2


def test_what_a_killed_process_left_is_completed(server: Hub) -> None:
    commit = fetch.revision_of(PATH)
    folder = Path(fetch.local_copy(PATH, commit))
    (folder / "a/saved_model.pb").unlink()
    assert not fetch.is_here(PATH, commit)
    assert files_below(Path(fetch.local_copy(PATH, commit))) == FILES


def test_without_the_hub_the_cache_is_enough(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = fetch.revision_of(PATH)
    folder = fetch.local_copy(PATH, commit)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for path in (PATH, f"{PATH}@main", f"{PATH}@{commit}"):
        assert fetch.revision_of(path) == commit
    assert fetch.local_copy(PATH, commit) == folder


@pytest.fixture
def gated(repository: Repository) -> Repository:
    repository.gated = True
    return repository


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize("token", [None, "hf_ofAnAccountWithoutAccess"])
def test_a_gated_model_needs_its_licence_and_an_account(
    token: str | None, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    refused(
        PATH, f"is gated: accept its licence at https://huggingface.co/{NAME}, then log in with "
        "hf auth login, or set HF_TOKEN",
    )  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert fetch.local_copy(PATH, fetch.revision_of(PATH))


def refused(path: str, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        fetch.local_copy(path, fetch.revision_of(path))
    message = str(raised.value)
    assert message.startswith(f"--model_path {path} ")
    assert why in message
    assert "\n" not in message
    assert "hf_" not in message


def test_a_private_model_is_as_a_missing_one(
    server: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.private = True
    refused(PATH, "does not exist, or is private or gated")
    refused("hf://some-lab/nothing", "does not exist, or is private or gated")
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert fetch.revision_of(PATH)


def test_what_the_repository_does_not_hold_is_named() -> None:
    refused(f"{PATH}@v9", "has no revision v9: pass a branch, a tag or a commit")
    refused(f"{PATH}@{'0' * 40}", f"has no revision {'0' * 40}")
    refused(f"{PATH}/b", f"has no folder or file b in {NAME}")


def test_a_busy_hub_and_none_at_all(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status = 503
    refused(PATH, "cannot be fetched: 127.0.0.1 answered with status 503; try again later")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(PATH, "cannot be fetched: 127.0.0.1 cannot be reached (ConnectError)")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(PATH, "is not in this machine's cache, and HF_HUB_OFFLINE forbids to fetch it")


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused_extra = pytest.raises(UsageError, match=r"pip install 'cxr-embed\[hub\]'")
    with refused_extra:
        fetch.revision_of(PATH)


def test_on_a_worker_it_is_the_machines_fault(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before each of five more attempts
    settings = models.ModelSettings(PATH, revision=fetch.revision_of(PATH), content="launcher's")
    server.status = 503
    with pytest.raises(MachineFault, match="answered with status 503"):
        SharedModel(settings)


@pytest.fixture
def published(server: Hub, tiny_model: Path) -> str:
    """A SavedModel in a gated repository, beside files that are not asked for."""
    server.add("lab/tiny", files_below(tiny_model, "tf/") | {"weights.bin": b"x"}, gated=True)
    return "hf://lab/tiny/tf"


def test_a_run_pins_the_commit_and_shows_no_token(
    server: Hub, published: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    images, output = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    (images / "1.dcm").write_bytes(make_dicom())
    job = {"input_path": images, "output_path": output, "model_path": published}
    ran = run_here(capsys, **job)
    assert ran.status == 2
    assert "is gated" in ran.err
    assert not output.exists()
    monkeypatch.setenv("HF_TOKEN", server.token)
    ran = run_here(capsys, **job)
    assert ran.status == 0, ran.err
    commit = server.repositories["lab/tiny"].refs["main"]
    config = json.loads((output / "_embedding_config.json").read_text())
    assert config["model_revision"] == manifest(output)["model_revision"] == commit
    assert manifest(output)["model_path"] == published
    assert "weights.bin" not in server.paths
    first = records(output)

    # Another commit with the same model goes on in the same output; another model does not.
    repository = server.repositories["lab/tiny"]
    repository.commit(repository.commits[commit] | {"README.md": b"typo"})
    assert run_here(capsys, **job).status == 0
    repository.commit({"tf/saved_model.pb": b"other"})
    assert "other settings (model_sha256)" in run_here(capsys, **job).err

    # A search embeds with the commit that the output was made with, and needs no Hub for it.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    query = tmp_path / "query.dcm"
    query.write_bytes(make_dicom())
    arguments = [f"--input_path={output}", f"--query={query}"]
    assert cli_main.guarded(search.main, arguments) == 0
    found = capsys.readouterr()
    assert f"embedding {query} with hf://lab/tiny@" in found.err

    pinned = run_here(
        capsys, **job | {"model_path": fetch.pinned(published, commit)}, overwrite=True
    )
    assert pinned.status == 0, pinned.err
    assert records(output) == first
    everything = b"".join(path.read_bytes() for path in output.rglob("*") if path.is_file())
    assert server.token.encode() not in everything
    assert server.token not in ran.out + ran.err + found.err


def test_workers_of_another_process_fetch_the_commit(
    server: Hub, published: str, tmp_path: Path
) -> None:
    script = (
        "import pickle, sys; settings = pickle.load(sys.stdin.buffer); print(settings.local_path)"
    )
    monkey = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": server.token}
    settings = models.ModelSettings(published, revision=fetch.revision_of(published))
    server.repositories["lab/tiny"].commit({"tf/saved_model.pb": b"newer"})
    pickled = pickle.dumps(settings)
    assert server.token.encode() not in pickled
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickled, env=monkey, capture_output=True, check=True
    )
    assert Path(done.stdout.decode().strip(), "saved_model.pb").read_bytes() != b"newer"


class TestOnnx:
    """Repositories often hold several graphs of one model."""

    @pytest.fixture
    def graphs(self, server: Hub, tmp_path: Path) -> str:
        save_graph(tmp_path / "onnx/model.onnx", data_file="model.onnx_data")
        save_graph(tmp_path / "onnx/model_fp16.onnx", data_file="model_fp16.onnx_data")
        files = {f"onnx/{path.name}": path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
        server.add("some-lab/graphs", files | {"config.json": b"{}"})
        return "hf://some-lab/graphs/onnx"

    def test_one_graph_is_fetched_with_its_data_file(self, server: Hub, graphs: str) -> None:
        settings = models.ModelSettings.of_path(f"{graphs}/model.onnx")
        assert settings.engine == "onnxruntime"
        assert models.load(settings).embedding_size == 5
        assert set(server.paths) == {"onnx/model.onnx", "onnx/model.onnx_data"}

    def test_what_cannot_be_run_is_not_fetched(self, server: Hub, graphs: str) -> None:
        with pytest.raises(UsageError, match=r"several \.onnx files \(model.onnx, model_fp16.onnx"):
            models.ModelSettings.of_path(graphs)
        hint = "such as hf://some-lab/graphs/onnx/model.onnx"
        with pytest.raises(UsageError, match=f"holds no saved_model.pb, .*{hint}"):
            models.ModelSettings.of_path("hf://some-lab/graphs")
        assert server.paths == []

    def test_what_is_here_needs_no_request(self, server: Hub, graphs: str) -> None:
        first = models.ModelSettings.of_path(f"{graphs}/model.onnx")
        models.load(first)
        pinned = fetch.pinned(graphs, first.revision)
        server.requests.clear()
        again = models.ModelSettings.of_path(f"{pinned}/model.onnx")
        assert models.load(again).embedding_size == 5
        assert server.requests == []


def test_inspect_and_transforms_take_the_address(
    server: Hub, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", server.token)
    image = tmp_path / "1.dcm"
    image.write_bytes(make_dicom())
    picture = tmp_path / "1.png"
    arguments = [str(image), f"--model_path={published}", f"--output_path={picture}"]
    assert cli_main.guarded(inspect.main, arguments) == 0, capsys.readouterr().err
    assert picture.is_file()
    assert EmbedRadiographs(published)._handler._settings.hub_commit
    wrong = [str(image), "--model_path=hf://lab", f"--output_path={picture}"]
    assert cli_main.guarded(inspect.main, wrong) == 2
