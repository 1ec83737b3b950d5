"""The reference network: its tables, graph, weights and exporter."""
