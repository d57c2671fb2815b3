"""What clients speak to a node: one module for each protocol over the same pipeline."""
