"""Encoders, one per file: values of a modality -> features. Imports `common.config`, `common.frozen`,
`common.media`."""
