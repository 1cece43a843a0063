"""Frozen evaluation: nearest neighbours, linear and dense probes, of any checkpoint.

``evaluate`` does it all; the parts are pure functions on tensors.
"""

from densessl.evaluation.dense import dense_knn, dense_probe
from densessl.evaluation.evaluate import evaluate, table
from densessl.evaluation.hook import EvaluationHook
from densessl.evaluation.knn import knn_classify
from densessl.evaluation.metrics import (
    average_precision,
    confusion_matrix,
    intersection_over_union,
    mean_average_precision,
    mean_iou,
)
from densessl.evaluation.probes import fit_linear, linear_probe

__all__ = [
    "EvaluationHook",
    "average_precision",
    "confusion_matrix",
    "dense_knn",
    "dense_probe",
    "evaluate",
    "fit_linear",
    "intersection_over_union",
    "knn_classify",
    "linear_probe",
    "mean_average_precision",
    "mean_iou",
    "table",
]
