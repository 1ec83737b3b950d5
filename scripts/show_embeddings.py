"""Prints an output's embeddings and its failure table: how to read both in a few lines."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cxr_embed


def main(folder: str) -> None:
    """Prints what is in `folder`."""
    embeddings = cxr_embed.load_embeddings(folder)
    print(f"cxr_embed.load_embeddings({folder!r}).values: float32 {embeddings.values.shape}")
    centred = embeddings.values - embeddings.values.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -2)
    for row, name in enumerate(embeddings.ids):
        nearest = int(alike[row].argmax())
        print(f"  {name:<28} nearest: {embeddings.ids[nearest]} ({alike[row, nearest]:+.3f})")
    table = max(Path(folder, "_runs").glob("*/failures.csv"))
    print(f"\n{table}:\n{table.read_text()}", end="")


if __name__ == "__main__":
    main(sys.argv[1])
