"""Suites of runs: tuning, statistics, tables. May import the same packages as `deploy.study`."""
