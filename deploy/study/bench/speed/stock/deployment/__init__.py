"""Stock Flower over SuperLink and SuperNodes."""
