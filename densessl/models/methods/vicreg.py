"""VICReg (2105.04906): equal views, channels that vary, and vary apart."""

from densessl.models.methods.two_view import TwoView
from densessl.registry import MODELS


@MODELS.register_module()
class VICReg(TwoView):
    """Variance, invariance, covariance: no negatives, no teacher, no predictor, no last norm."""

    own_loss = dict(type="VICRegLoss", sim_weight=25, var_weight=25, cov_weight=1)
