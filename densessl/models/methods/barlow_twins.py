"""Barlow Twins (2103.03230): the cross-correlation of two views' channels becomes the identity."""

from densessl.models.methods.two_view import TwoView
from densessl.registry import MODELS


@MODELS.register_module()
class BarlowTwins(TwoView):
    """Redundancy reduction: no negatives, no teacher, no predictor; wants a wide embedding."""

    own_loss = dict(type="BarlowTwinsLoss", lambd=0.0051)
