"""The preprocessing of published encoders, by the original packages, from the published settings.

Nothing is downloaded. The settings are those of
  microsoft/rad-dino, preprocessor_config.json: shortest edge and centre crop of 518, bicubic,
    rescaled by 1/255, mean 0.5307, standard deviation 0.2583
  google/medsiglip-448, preprocessor_config.json: 448 x 448, bicubic, 1/255, mean and std 0.5
  microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224, open_clip_config.json: 224, and the mean
    and standard deviation of CLIP; open_clip's own defaults: shortest edge, bicubic
  torchxrayvision's README and process_image.py: normalize, XRayCenterCrop, XRayResizer(224)
"""

from __future__ import annotations

import numpy as np
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RAD_DINO = {
    "size": {"shortest_edge": 518},
    "crop_size": {"height": 518, "width": 518},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5307] * 3,
    "image_std": [0.2583] * 3,
}
MEDSIGLIP = {
    "size": {"height": 448, "width": 448},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Returns a rendered radiograph as the 8-bit image that most originals take."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def rgb(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(to_8_bits(pixels)).convert("RGB")


def rad_dino(pixels: np.ndarray, backend: str = "pil") -> np.ndarray:
    """float32 (3, 518, 518)."""
    return _transformers("BitImageProcessor", RAD_DINO, pixels, backend)


def medsiglip(pixels: np.ndarray, backend: str = "pil") -> np.ndarray:
    """float32 (3, 448, 448)."""
    return _transformers("SiglipImageProcessor", MEDSIGLIP, pixels, backend)


def biomedclip(pixels: np.ndarray) -> np.ndarray:
    """float32 (3, 224, 224)."""
    from open_clip.transform import image_transform

    transform = image_transform(224, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)
    return np.asarray(transform(rgb(pixels)))


def xray_vision(pixels: np.ndarray, engine: str = "skimage") -> np.ndarray:
    """float32 (1, 224, 224) in -1024..1024, from the radiograph's full depth."""
    from torchxrayvision import datasets

    image = datasets.normalize(pixels, np.iinfo(pixels.dtype).max)[np.newaxis]
    return np.asarray(datasets.XRayResizer(224, engine=engine)(datasets.XRayCenterCrop()(image)))


def _transformers(name: str, settings: dict, pixels: np.ndarray, backend: str) -> np.ndarray:
    """Runs an image processor: with Pillow, with torchvision, or on floats with torchvision."""
    import transformers

    if backend == "pil":
        processor = getattr(transformers, f"{name}Pil")(**settings)
        image = rgb(pixels)
    elif backend == "torchvision":
        processor = getattr(transformers, name)(**settings)
        image = rgb(pixels)
    else:
        processor = getattr(transformers, name)(**settings | {"do_rescale": False})
        image = np.repeat(pixels[np.newaxis] / np.float32(np.iinfo(pixels.dtype).max), 3, axis=0)
    return np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
