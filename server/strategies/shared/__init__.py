"""What several strategies have in common; no strategy itself."""
