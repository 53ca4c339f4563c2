"""The files that a run writes: its folder, its checkpoints. Imports `common` alone."""
