"""Packs and verifies embeddings as data sets."""
