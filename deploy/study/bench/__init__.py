"""Suites of runs: tuning, statistics, tables. Imports what `deploy.study` may."""
