"""A small world of drawn birds: species, pictures of them, and what people say of the pictures."""
