"""Heads: small classifiers on top of embeddings, trained, applied and measured."""
