"""Builds the report: one self-contained HTML page about an output."""
