"""What several strategies have in common; no strategy itself. Imports what `server.strategies` may."""
