"""The arithmetic of aggregation: block-wise mean, server optimisers, similarity. Imports `common` alone."""
