"""A run of the main job: its plan, its execution, and the tables that it leaves behind."""
