"""Side-by-side benchmarks: the arms take turns within one run, and medians and ratios are reported."""
