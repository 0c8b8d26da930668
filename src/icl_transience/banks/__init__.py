"""Banks: exemplars of classes as embeddings. One module a source, each with `build(spec, files, log) -> Bank`."""
