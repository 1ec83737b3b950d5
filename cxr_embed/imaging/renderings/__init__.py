"""The renderings, a module each; registered in `cxr_embed.imaging.rendering`."""
