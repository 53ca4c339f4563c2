"""Models, one a file: features of the modalities -> logits. Imports `common.encoders`, `common.config` and
`common.types`.
"""
