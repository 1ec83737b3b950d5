"""Drawings for the documentation, as SVG."""
