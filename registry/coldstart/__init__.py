"""A start without a registry: the last good lists, on disk."""
