"""What every expert contributes: the noun, its file, the collector that observes a running model, and importers."""
