"""Models from buckets, with the real client and a stand-in for the service."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import BadLine, HugeBucket, emulator, spoken_to, upload
from onnx_graphs import save_graph

from cxr_embed import models, storage
from cxr_embed.errors import UsageError
from cxr_embed.models import fetch


class OneName(HugeBucket):
    """A bucket with one object; the emulators take no such names, Google does."""

    def __init__(self, name: str) -> None:
        super().__init__(1)
        self._name = name

    def name(self, number: int) -> str:
        return self._name


MODEL = "gs://bucket/model"
FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/a": b""}


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with emulator() as address, spoken_to(address):
        yield address


@pytest.fixture(autouse=True)
def cache(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, data in FILES.items():
        storage.write_whole(f"{MODEL}/{name}", data)
    return tmp_path / "cxr-embed" / "models"


def test_a_model_is_fetched_once_and_whole(service: str, cache: Path) -> None:
    line = BadLine(service, share=0)
    with line.open() as address, spoken_to(address):
        revision = fetch.revision_of(MODEL)
        assert not fetch.is_here(MODEL, revision)
        folder = Path(fetch.local_copy(MODEL, revision))
        first = len(line.paths)
        assert fetch.is_here(MODEL, revision)
        assert fetch.local_copy(MODEL, revision) == str(folder)
    assert len(line.paths) == first
    assert {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == FILES
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [folder.name]


def _fetch(revision: str) -> None:
    fetch.local_copy(MODEL, revision)


def test_processes_of_one_machine_fetch_it_once(service: str) -> None:
    line = BadLine(service, share=0)
    with line.open() as address, spoken_to(address):
        revision = fetch.revision_of(MODEL)
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_fetch, args=(revision,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    assert sum("alt=media" in path for path in line.paths) == sum(map(bool, FILES.values()))


def test_what_a_killed_process_left_is_not_taken_for_a_model(cache: Path) -> None:
    revision = fetch.revision_of(MODEL)
    partial = cache / f".bucket-{revision}.partial"
    partial.mkdir(parents=True)
    (partial / "saved_model.pb").write_bytes(b"torn")
    (partial / "stray").write_bytes(b"")
    folder = Path(fetch.local_copy(MODEL, revision))
    assert (folder / "saved_model.pb").read_bytes() == b"graph"
    assert not (folder / "stray").exists()
    assert not partial.exists()


def test_a_model_that_changed_meanwhile_is_refused() -> None:
    revision = fetch.revision_of(MODEL)
    storage.write_whole(f"{MODEL}/saved_model.pb", b"other")
    with pytest.raises(UsageError, match="has changed since the run was started"):
        fetch.local_copy(MODEL, revision)
    assert fetch.revision_of(MODEL) != revision


def test_what_cannot_be_fetched_is_a_users_mistake(service: str) -> None:
    with pytest.raises(UsageError, match="gs://bucket/nothing holds no files"):
        fetch.revision_of("gs://bucket/nothing")
    with pytest.raises(UsageError, match="gs://no-bucket/model does not exist"):
        fetch.revision_of("gs://no-bucket/model")


def test_no_file_lands_outside_of_the_models_folder(cache: Path) -> None:
    for name in ("model/../../x", "model//etc/x"):
        bucket = OneName(name)
        refused = pytest.raises(UsageError, match="which is no valid file path")
        with bucket.open() as address, spoken_to(address), refused:
            fetch.revision_of(MODEL)
    assert not cache.exists()


def test_settings_name_the_bucket_and_load_from_disk(small_model: Path, cache: Path) -> None:
    remote = upload(small_model, "gs://bucket/small")
    settings = models.ModelSettings(remote, revision=fetch.revision_of(remote))
    assert models.content_id(settings) == models.content_id(models.ModelSettings(str(small_model)))
    assert models.load(settings).embedding_size == 4096
    assert settings.path == remote


class TestOneFile:
    """A model that is one file, with the files that it names."""

    @pytest.fixture
    def graph(self, tmp_path: Path, cache: Path) -> str:
        save_graph(tmp_path / "m/model.onnx", data_file="weights/all.data")
        for name in ("model.onnx", "weights/all.data"):
            storage.write_whole(f"gs://bucket/g/{name}", (tmp_path / "m" / name).read_bytes())
        storage.write_whole("gs://bucket/g/notes.txt", b"not part of it")
        return "gs://bucket/g/model.onnx"

    def test_it_is_fetched_with_its_data_files_and_nothing_else(self, graph: str) -> None:
        settings = models.ModelSettings.of_path(graph)
        assert settings.engine == "onnxruntime"
        assert models.load(settings).embedding_size == 5
        copy = Path(settings.local_path)
        found = {p.relative_to(copy.parent).as_posix() for p in copy.parent.rglob("*")}
        assert found == {"model.onnx", "weights", "weights/all.data"}

    def test_its_folder_is_as_good(self, graph: str) -> None:
        settings = models.ModelSettings.of_path(graph.rpartition("/")[0])
        assert settings.engine == "onnxruntime"
        one = models.ModelSettings.of_path(graph)
        assert models.content_id(settings) == models.content_id(one)

    def test_what_is_missing_is_named(self, graph: str) -> None:
        with pytest.raises(UsageError, match=r"gs://bucket/g/other\.onnx does not exist"):
            fetch.revision_of("gs://bucket/g/other.onnx")
        storage.remove("gs://bucket/g/weights/all.data")
        with pytest.raises(UsageError, match=r"model\.onnx needs weights/all\.data, which is not"):
            fetch.revision_of(graph)
