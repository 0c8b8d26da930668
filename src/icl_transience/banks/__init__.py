"""Banks: exemplars of classes as embeddings or images.

One module a source, each with `build(spec, files, log) -> Bank`.
"""
