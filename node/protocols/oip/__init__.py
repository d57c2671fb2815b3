"""The Open Inference Protocol (V2): what Triton, KServe and their clients speak, over HTTP."""
