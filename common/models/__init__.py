"""Models, one per file: features of the modalities -> logits. Imports `common.encoders`, `common.config` and
`common.types`.
"""
