"""What several data sets have in common; no data set itself. Imports what `common.datasets` may."""
