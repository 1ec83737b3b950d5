"""The reference network EfficientNet: architecture tables, graph, weights and exporter."""
