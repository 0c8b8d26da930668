"""Figures, captions, pages, archives and exports of results."""
