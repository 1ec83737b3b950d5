"""Embeddings as data sets: read back, packed, verified, searched and reported on."""
