"""What several commands have in common; no command itself."""
