"""One copy of a model in a process; a bad image costs no other, a broken machine ends the work."""

from __future__ import annotations

import ast
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_embed import models
from cxr_embed.errors import ImageRejected, MachineFault, UsageError
from cxr_embed.faults import STREAK
from cxr_embed.models import ModelSettings, SomeFailed
from cxr_embed.models.sharing import SharedModel, shared
from cxr_embed.radiograph import Radiograph

SIDE = 4
UNLUCKY = 13.0  # the model refuses an image of these


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SavedModel that hands on its pixels, and refuses a batch with an unlucky one in it."""
    import tensorflow as tf

    class Moody(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, SIDE, SIDE, 1], tf.float32, name="image")]
        )
        def __call__(self, image: Any) -> dict[str, Any]:
            refusal = tf.debugging.Assert(tf.reduce_all(image != UNLUCKY), ["unlucky"])
            with tf.control_dependencies([refusal]):
                return {"embedding": tf.reshape(image, [-1, SIDE * SIDE])}

    folder = tmp_path_factory.mktemp("models") / "moody"
    module = Moody()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    return str(folder)


def image_of(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 1), value, np.float32)


def values(results: Sequence[np.ndarray | ImageRejected]) -> list[Any]:
    """Returns each embedding's first float, or the reason why there is none."""
    return [r.reason if isinstance(r, ImageRejected) else float(r[0]) for r in results]


class OneOfOurOwn:
    """A model in plain Python, for what no SavedModel does when it is asked to."""

    best_batch_size = 4

    def __init__(self, embed: Callable[[Sequence[Any]], Any]) -> None:
        self.embed = embed

    def fit(self, radiograph: Radiograph) -> Any:
        return radiograph.pixels[100]  # most are smaller


@pytest.fixture
def own(moody: str) -> Callable[[Callable[[Sequence[Any]], Any]], SharedModel]:
    def make(embed: Callable[[Sequence[Any]], Any]) -> SharedModel:
        holder = SharedModel(ModelSettings(moody))
        holder.model = OneOfOurOwn(embed)  # type: ignore[assignment]
        return holder

    return make


class TestOneBadImage:
    @pytest.mark.parametrize("batch_size", [0, 7])
    def test_it_costs_no_other_its_embedding(self, moody: str, batch_size: int) -> None:
        model = SharedModel(ModelSettings(moody, batch_size=batch_size))
        images = [image_of(value) for value in (1, 2, UNLUCKY, 4, 5, UNLUCKY, 7)]
        results = model.embed_each(images)
        assert values(results) == [1, 2, "model_error", 4, 5, "model_error", 7]
        assert "InvalidArgumentError" in str(results[2])
        assert "\n" not in str(results[2])

    def test_numbers_that_are_none_are_not_finite(self, moody: str) -> None:
        model = SharedModel(ModelSettings(moody, batch_size=4))
        images = [image_of(value) for value in (1, np.nan, np.inf, 4)]
        images[3][0, 0, 0] = -np.inf
        found = model.embed_each([*images, image_of(5)])
        assert values(found) == [1, "not_finite", "not_finite", "not_finite", 5]

    def test_a_model_that_knows_which_failed_is_not_asked_again(self, own: Any) -> None:
        calls = []

        def embed(images: Sequence[Any]) -> Any:
            calls.append(len(images))
            raise SomeFailed([np.float32([1]), ValueError("this one"), np.float32([3])])

        assert values(own(embed).embed_each([0, 0, 0])) == [1, "model_error", 3]
        assert calls == [3]

    def test_no_image_is_no_call(self, moody: str) -> None:
        assert SharedModel(ModelSettings(moody)).embed_each([]) == []

    def test_a_radiograph_that_cannot_be_fitted_is_rejected_by_itself(self, own: Any) -> None:
        fitted = own(lambda images: images).fit(Radiograph(np.zeros((9, 9), np.uint16)))
        assert isinstance(fitted, ImageRejected)
        assert fitted.reason == "model_error"
        assert "IndexError" in fitted.detail


class TestStreak:
    def test_sixteen_failures_in_a_row_are_the_machines(self, moody: str) -> None:
        model = SharedModel(ModelSettings(moody, batch_size=8))
        assert len(model.embed_each([image_of(UNLUCKY)] * (STREAK - 1))) == STREAK - 1
        with pytest.raises(MachineFault, match=r"moody failed on 16 images in a row.*unlucky"):
            model.embed_each([image_of(UNLUCKY)])

    def test_a_success_in_between_begins_again(self, moody: str) -> None:
        model = SharedModel(ModelSettings(moody, batch_size=8))
        images = ([image_of(UNLUCKY)] * (STREAK - 1) + [image_of(1)]) * 3
        assert values(model.embed_each(images)).count(1.0) == 3

    def test_embeddings_that_are_not_finite_count_too(self, moody: str) -> None:
        model = SharedModel(ModelSettings(moody, batch_size=8))
        with pytest.raises(MachineFault, match=r"in a row.*NaN"):
            model.embed_each([image_of(UNLUCKY), image_of(np.nan)] * (STREAK // 2))


class TestMachineFault:
    def test_memory_that_is_used_up(self, own: Any) -> None:
        model = own(lambda images: np.ones((len(images), 2**58), np.float32))
        with pytest.raises(MachineFault, match="no memory left: use a smaller --batch_size"):
            model.embed_each([0])

    def test_memory_of_the_device(self, own: Any) -> None:
        import tensorflow as tf

        def embed(_images: Sequence[Any]) -> Any:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

        with pytest.raises(MachineFault, match="the model cannot run: ResourceExhaustedError: OOM"):
            own(embed).embed_each([0, 0])

    def test_a_failure_of_one_image_that_is_the_devices(self, own: Any) -> None:
        import tensorflow as tf

        def embed(_images: Sequence[Any]) -> Any:
            raise SomeFailed([np.float32([1]), tf.errors.UnavailableError(None, None, "gone")])

        with pytest.raises(MachineFault, match="UnavailableError: gone"):
            own(embed).embed_each([0, 0])

    def test_another_model_than_the_run_was_started_with(self, moody: str) -> None:
        settings = ModelSettings(moody)
        SharedModel(settings.with_content(models.content_id(settings)))
        with pytest.raises(MachineFault, match="from the one that the run was started with"):
            SharedModel(settings.with_content("0" * 64))

    def test_a_model_that_is_not_there_is_the_users_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="does not exist"):
            shared(ModelSettings(str(tmp_path / "none")))


class TestOneCopy:
    def test_threads_get_the_same(self, moody: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: shared(ModelSettings(moody)), range(16)))
        assert len(set(map(id, found))) == 1

    def test_the_latest_stays_and_the_one_before_is_freed(self, moody: str) -> None:
        one = weakref.ref(shared(ModelSettings(moody)))
        gc.collect()
        assert one() is shared(ModelSettings(moody))  # though nothing here holds it
        shared(ModelSettings(moody, batch_size=2))
        gc.collect()
        assert one() is None

    def test_calls_are_one_at_a_time(self, own: Any) -> None:
        inside, most, lock = 0, 0, threading.Lock()

        def embed(images: Sequence[Any]) -> np.ndarray:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.005)  # whatever may come in, does
            with lock:
                inside -= 1
            return np.ones((len(images), 2), np.float32)

        model = own(embed)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: model.embed_each([0, 0]), range(24)))
        assert [len(result) for result in results] == [2] * 24
        assert most == 1


def test_whoever_needs_an_embedding_goes_through_the_lock() -> None:
    """Engines have no locks of their own: nothing but SharedModel may call them."""
    package = Path(models.__file__).parent.parent
    callers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "embed"
        and ast.unparse(node.func.value) != "self"
    }
    assert callers == {"models/sharing.py"}


class TestBatches:
    def test_on_a_cpu_an_embedding_is_the_same_bytes_alone_and_among_others(
        self, small_model: Path
    ) -> None:
        model = SharedModel(ModelSettings(str(small_model), device="cpu"))
        random = np.random.default_rng(0)
        images = list(random.random((7, 64, 64, 3), np.float32))
        among_others = model.embed_each(images)
        for image, vector in zip(images, among_others, strict=True):
            (alone,) = model.embed_each([image])
            assert isinstance(vector, np.ndarray)
            assert isinstance(alone, np.ndarray)
            assert (vector.dtype, vector.shape) == (np.float32, (4096,))
            assert alone.tobytes() == vector.tobytes()

    def test_a_call_gets_at_most_the_models_best_number(self, own: Any) -> None:
        calls: list[int] = []

        def embed(images: Sequence[Any]) -> np.ndarray:
            calls.append(len(images))
            return np.ones((len(images), 2), np.float32)

        assert len(own(embed).embed_each([0] * 10)) == 10
        assert calls == [4, 4, 2]
