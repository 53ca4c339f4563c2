"""What a run writes: its folder, its checkpoints. Imports `common` alone."""
