"""A member of each family, complete and small: the examples of docs/extend.md. Import what any plugin may."""
