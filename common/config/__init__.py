"""An experiment's file, and the components that it names. Imports only `common.errors` and `common.modality`."""
