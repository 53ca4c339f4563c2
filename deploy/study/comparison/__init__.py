"""Finished runs side by side: rows, table, page. Imports `deploy.study.bench.statistics` and `server.report`."""
