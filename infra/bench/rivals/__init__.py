"""Other ways to serve the same model, for comparison; each runs as a process of its own."""

# Where the environment says which frozen graph to serve.
VARIABLE = "TWOSTEP_BENCH_GRAPH"
