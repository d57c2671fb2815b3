"""The directory on Consul, which the embedded registry answers too: reads, writes, and the HTTP between."""
