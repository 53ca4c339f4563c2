"""A small world of drawn birds: species, pictures of them, and captions of the pictures."""
