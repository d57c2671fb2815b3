"""Ways to choose the next endpoint; ``select.named`` finds one by its name."""
