"""A small and complete member of each family: the examples of docs/extend.md. They import only packages that every
plugin may import."""
