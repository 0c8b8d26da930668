"""icl-transience: when in-context learning appears in a transformer, when it fades, and what keeps it."""
