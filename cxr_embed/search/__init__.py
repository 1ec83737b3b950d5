"""The images nearest to one image."""
