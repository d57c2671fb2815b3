"""The health-check dashboard: pages and JSON over the registry, the nodes' own load and reports of clients."""
