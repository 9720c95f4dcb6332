"""Espalier's engine: from a mixture-of-experts model to a smaller one, every step a function.

The engine imports neither gradio nor plotly and never prints; progress and results go back to the caller.
"""

__version__ = "0.1.0"
