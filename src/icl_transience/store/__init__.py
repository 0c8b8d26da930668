"""Files: written whole or not at all, locked, checked when read; one module a file kind."""
