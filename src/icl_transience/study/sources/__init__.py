"""Source files of banks: where they lie, what they hold, their SHA-256."""
