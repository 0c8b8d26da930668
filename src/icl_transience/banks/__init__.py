"""Banks: exemplars of classes, embedded or as images. A module a source, with `build(spec, files, log) -> Bank`."""
