"""Models on a CPU that is cut into three devices; a program, since the cut must come first.

python three_devices.py embed OUT.npz SMALL_MODEL CHAIN GREEDY
python three_devices.py run [flags of the main job]
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lookalikes import save_elixr_b, save_elixr_c

from cxr_embed import models
from cxr_embed.models import ModelSettings
from cxr_embed.models.config import ModelConfig, StageConfig
from cxr_embed.radiograph import Radiograph

CHANNELS, SIDE = 6, 160
# How many images come at a time. Nearly none of it fills three devices evenly.
BATCHES = (6, 4, 1, 13, 6)


def save_chain(folder: Path) -> str:
    """Saves small look-alikes of the two published models, both locked at one image."""
    save_elixr_c(folder / "c", side=SIDE, channels=CHANNELS)
    save_elixr_b(folder / "b", channels=CHANNELS)
    return str(folder)


def save_greedy(folder: Path) -> str:
    """Saves a model that wants 64 TB for more than two images at a time, and for a white one."""
    import tensorflow as tf

    class Greedy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 1], tf.float32, name="image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            too_much = (tf.shape(image)[0] > 2) | (tf.reduce_min(image) == 1.0)
            side = tf.where(too_much, 2**22, 1)
            room = tf.reduce_max(tf.fill([side, side], image[0, 0, 0, 0]))
            return {"embedding": tf.reshape(image, [-1, 16]) + 0.0 * room}

    module = Greedy()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    return str(folder)


def chain_config(*, pruned: bool) -> ModelConfig:
    """Both models in a row; the first as a whole, or only its network, which takes batches."""
    first = StageConfig("c", input="input_example", output="feature_maps_0", batch=1)
    preparation: dict[str, Any] = {}
    if pruned:
        feed, fetch = "EfficientNet/grayscale_to_rgb:0", "EfficientNet/dropout/Identity:0"
        first = StageConfig("c", feed=feed, fetch=fetch, pool=(5, 5))
        preparation = {"size": (SIDE, SIDE), "preprocessing": "elixr_c"}
    second = StageConfig(
        "b", input="image_feature", output="all_contrastive_img_emb", batch=1,
        constants=(("ids", 0.0), ("paddings", 0.0)),
    )  # fmt: skip
    return ModelConfig(pooling="flatten", stages=(first, second), **preparation)


def radiographs(count: int) -> list[Radiograph]:
    """Noise of a fixed seed."""
    rng = np.random.default_rng(1)
    return [Radiograph(rng.integers(0, 65536, (50, 40), np.uint16)) for _ in range(count)]


def vectors(model: models.EmbeddingModel) -> np.ndarray:
    """Returns the embeddings of as many radiographs as come at most at a time."""
    return model.embed([model.fit(radiograph) for radiograph in radiographs(max(BATCHES))])


def _embed(output: str, small_model: str, chain: str, greedy: str) -> None:
    found: dict[str, Any] = {}
    model = models.load(ModelSettings(small_model, batch_size=6))
    found["device"], found["best_batch_size"] = model.device, model.best_batch_size
    fitted = [model.fit(radiograph) for radiograph in radiographs(max(BATCHES))]
    for number, count in enumerate(BATCHES):
        found[f"batch_{number}"] = model.embed(fitted[:count])
    found["traces"] = model._stages[0]._call.step.experimental_get_tracing_count()  # type: ignore[attr-defined]
    half = models.load(ModelSettings(small_model, precision="bfloat16", batch_size=6))
    found["bfloat16"] = vectors(half)
    examples = ModelConfig(signature="serialized_example")
    found["examples"] = vectors(models.load(ModelSettings(small_model, examples, batch_size=6)))
    locked = models.load(ModelSettings(chain, chain_config(pruned=False)))
    found["locked_at_most"], found["locked"] = locked.max_batch_size, vectors(locked)
    pruned = ModelSettings(chain, chain_config(pruned=True), batch_size=6)
    found["pruned"] = vectors(models.load(pruned))
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("cxr_embed").addHandler(handler)
    found["greedy"] = vectors(models.load(ModelSettings(greedy, batch_size=12)))
    found["warnings"] = warnings
    np.savez(output, **found)


def _cut_the_cpu() -> None:
    from cxr_embed.models.tensorflow.runtime import import_tensorflow

    config = import_tensorflow().config
    (cpu,) = config.list_physical_devices("CPU")
    config.set_logical_device_configuration(cpu, [config.LogicalDeviceConfiguration()] * 3)


if __name__ == "__main__":
    _cut_the_cpu()
    if sys.argv[1] == "embed":
        _embed(*sys.argv[2:])
    else:
        from cxr_embed.cli import main, run

        sys.exit(main.guarded(run.main, sys.argv[2:]))
