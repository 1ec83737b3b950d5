"""Ray Data: tasks that read, one actor with the model, in PyTorch."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import ray
import timm
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

MEAN, STD = (torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
folder, weights, output = map(Path, sys.argv[1:])
output.mkdir()


def read(row: dict[str, Any]) -> dict[str, Any]:
    """Adds float32 [3, 224, 224] in -1..1."""
    dataset = pydicom.dcmread(row["item"])
    stored = apply_modality_lut(dataset.pixel_array, dataset)
    pixels = apply_voi_lut(stored, dataset).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = (pixels - pixels.min()) / (np.ptp(pixels) or 1)
    image = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None], (224, 224), mode="bilinear", antialias=True
    )
    return {"path": row["item"], "image": ((image[0].repeat(3, 1, 1) - MEAN) / STD).numpy()}


class Embed:
    """The model, loaded once."""

    def __init__(self) -> None:
        self.model = timm.create_model("tf_efficientnet_b0", num_classes=0).eval()
        self.model.load_state_dict(load_file(weights))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds float32 [n, 1280]."""
        with torch.inference_mode():
            vectors = self.model(torch.from_numpy(batch["image"])).numpy()
        return {"path": batch["path"], "vector": vectors}


ray.init(logging_level="ERROR", log_to_driver=False)
rows = ray.data.from_items(sorted(map(str, folder.glob("*.dcm")))).map(read)
for row in rows.map_batches(Embed, batch_size=16, concurrency=1).iter_rows():
    np.save(output / f"{Path(row['path']).stem}.npy", row["vector"])
