"""Pictures of what a method sees: its views, which cells it matches, what its features tell apart.

Each function returns a matplotlib figure; ``tools/visualize.py`` saves it.
"""

from densessl.visualization.correspondence import show_correspondence
from densessl.visualization.features import show_features
from densessl.visualization.views import show_views

__all__ = ["show_correspondence", "show_features", "show_views"]
