"""A digital thorax phantom: radiographs that look real and belong to nobody."""
