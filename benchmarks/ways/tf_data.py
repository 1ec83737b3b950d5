"""A tf.data pipeline with parallel reading, batches and prefetching, on the SavedModel."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import tensorflow as tf
from pydicom.pixels import apply_modality_lut, apply_voi_lut

folder, model_path, output = map(Path, sys.argv[1:])
output.mkdir()


def read(path: bytes) -> np.ndarray:
    """Returns float32 [224, 224, 3] in 0..1."""
    dataset = pydicom.dcmread(path.decode())
    stored = apply_modality_lut(dataset.pixel_array, dataset)
    pixels = apply_voi_lut(stored, dataset).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = (pixels - pixels.min()) / (np.ptp(pixels) or 1)
    small = tf.image.resize(pixels[:, :, None], (224, 224), antialias=True)
    return np.repeat(small.numpy(), 3, axis=2)


def load(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a path and its pixels."""
    return path, tf.ensure_shape(tf.numpy_function(read, [path], tf.float32), (224, 224, 3))


signature = tf.saved_model.load(str(model_path)).signatures["serving_default"]
paths = sorted(map(str, folder.glob("*.dcm")))
data = tf.data.Dataset.from_tensor_slices(paths).map(load, tf.data.AUTOTUNE).batch(16).prefetch(1)
for names, images in data:
    for name, vector in zip(names.numpy(), signature(image=images)["embedding"], strict=True):
        np.save(output / f"{Path(name.decode()).stem}.npy", vector.numpy())
