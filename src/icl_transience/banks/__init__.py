"""Exemplars from their sources: one module a source, each with `build(spec, files, log) -> Bank`."""
