"""Searches the images that are most similar to one image."""
