"""One self-contained HTML page about an output."""
