"""Stock Flower's simulation."""
