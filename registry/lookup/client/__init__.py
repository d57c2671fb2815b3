"""A client of the look-up service: the directory behind a ``lookup://`` address."""
