"""pydicom, PyTorch and timm in a loop: what a notebook would do."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import timm
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

MEAN, STD = (torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
folder, weights, output = map(Path, sys.argv[1:])
output.mkdir()
model = timm.create_model("tf_efficientnet_b0", num_classes=0).eval()
model.load_state_dict(load_file(weights))
with torch.inference_mode():
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        stored = apply_modality_lut(dataset.pixel_array, dataset)
        pixels = apply_voi_lut(stored, dataset).astype(np.float32)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max() - pixels
        pixels = (pixels - pixels.min()) / (np.ptp(pixels) or 1)
        image = torch.nn.functional.interpolate(
            torch.from_numpy(pixels)[None, None], (224, 224), mode="bilinear", antialias=True
        )
        features = model((image.repeat(1, 3, 1, 1) - MEAN) / STD)
        np.save(output / f"{path.stem}.npy", features[0].numpy())
