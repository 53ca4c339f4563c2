"""Metrics, one per file: figures that are computed from tallies of any number of sites. Imports `tasks` of `common`.

scikit-learn and torchmetrics compute most of these figures from examples, which do not leave a site. The tests compare
every metric with them.
"""
