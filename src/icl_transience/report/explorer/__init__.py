"""The explorer of a study: one page that works offline, with every curve of the tables in it to choose from."""
