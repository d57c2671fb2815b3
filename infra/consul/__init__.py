"""A real Consul: how to get the binary (``install.sh``) and how to run it on one machine (``agent``)."""
