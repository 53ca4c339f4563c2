"""Tasks, one per file: labels, scores, and the counts of predictions. Imports `config` and `errors` of `common`."""
