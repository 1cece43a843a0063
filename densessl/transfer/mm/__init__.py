"""What the transfer configs use inside mmdet and mmseg.

``detection`` and ``segmentation`` register the parts of one framework each and import no other.
"""

from mmengine.config import utils

# Without this line mmengine does not find ``mmseg::`` configs in the maintained mmseg package.
utils.MODULE2PACKAGE["mmseg"] = "mmseg"
