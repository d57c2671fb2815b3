"""What runs a model: one module for each engine behind one protocol."""
