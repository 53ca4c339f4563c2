"""What several data sets have in common. Not a data set itself: a package is none."""
