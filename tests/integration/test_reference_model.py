"""The real EfficientNet-L2: exported once into the cache, run on real radiographs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from make_sample_dicoms import make_dataset
from running import manifest, run_here

import cxr_embed
from cxr_embed import models
from cxr_embed.efficientnet import reference
from cxr_embed.efficientnet.architecture import ARCHITECTURES, folded_parameter_count
from cxr_embed.models.sharing import shared

pytestmark = pytest.mark.slow


def test_radiographs_through_the_reference_model(
    real_radiographs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    folder = tmp_path / "radiographs"
    folder.mkdir()
    for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm"):
        shutil.copy(real_radiographs[name], folder)
    ran = run_here(capsys, input_path=folder, output_path=tmp_path / "out")
    assert ran.status == 0, ran.err
    assert "Untrained embeddings carry no clinical meaning" in ran.err
    assert "475 x 475 in, 4096 floats out" in ran.err

    embeddings = cxr_embed.load_embeddings(str(tmp_path / "out"))
    assert embeddings.values.shape == (2, 4096)
    assert np.isfinite(embeddings.values).all()
    first, second = embeddings.values / np.linalg.norm(embeddings.values, axis=1, keepdims=True)
    assert first @ second < 0.9  # a chest and a leg

    # The same image by TensorFlow alone: its own area resizing, its own loading.
    pixels = cxr_embed.read_radiograph(folder / "RG1_UNCR.dcm").pixels
    image = tf.cast(pixels[None, :, :, None], tf.float32) / 65535
    image = tf.repeat(tf.image.resize(image, (475, 475), method="area"), 3, axis=3)
    path = manifest(tmp_path / "out")["model_path"]
    assert path.startswith(str(reference.cache_folder()))
    numbers = folded_parameter_count(ARCHITECTURES["efficientnet-l2"], 4096)
    on_disk = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
    assert 4 * numbers <= on_disk <= 4 * numbers + 10_000_000  # each weight once
    signature = tf.saved_model.load(path).signatures["serving_default"]
    alone = signature(image=image)["embedding"].numpy()[0]
    assert first @ alone / np.linalg.norm(alone) > 0.9999
    del signature

    # The model that the run has loaded, on generated patients: images of two kinds would only show
    # the way from kind to kind.
    settings = models.ModelSettings(path)
    model = shared(settings.with_content(models.content_id(settings))).model
    patients = [cxr_embed.read_radiograph(make_dataset(seed)) for seed in range(4)]
    batch = np.stack([model.fit(patient) for patient in patients])
    vectors = np.concatenate([model.embed(image[np.newaxis]) for image in batch])
    np.testing.assert_array_equal(model.embed(batch[:1])[0], vectors[0])
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert (centred @ centred.T)[np.triu_indices(len(batch), 1)].max() < 0.6
    together = model.embed(batch[[1, 0]])
    assert np.abs(together - vectors[[1, 0]]).max() <= 1e-4 * np.abs(vectors).max()
