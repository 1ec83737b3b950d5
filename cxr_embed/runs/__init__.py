"""Plans and executes a run of the main job, and writes its tables and manifest."""
