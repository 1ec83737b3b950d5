"""torchxrayvision's reader and transforms, image by image as its own scripts do."""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import torchxrayvision as xrv
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

MEAN, STD = (torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
folder, weights, output = map(Path, sys.argv[1:])
output.mkdir()
model = timm.create_model("tf_efficientnet_b0", num_classes=0).eval()
model.load_state_dict(load_file(weights))
transform = torchvision.transforms.Compose(
    [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)]
)
with torch.inference_mode():
    for path in sorted(folder.glob("*.dcm")):
        image = transform(xrv.utils.read_xray_dcm(path, voi_lut=True)[None])
        batch = (torch.from_numpy(image)[None].repeat(1, 3, 1, 1) / 1024 + 1) / 2
        np.save(output / f"{path.stem}.npy", model((batch - MEAN) / STD)[0].numpy())
