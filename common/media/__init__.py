"""Files of a modality as raw values: pictures, sounds, series, texts. Imports only `common.errors`."""
