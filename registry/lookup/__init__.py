"""Step 1 as a service, for clients that must not talk to Consul: one watch per service, a delta to each client."""
