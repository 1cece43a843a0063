"""What training costs, station by station; ``tools/benchmark.py`` is the way in."""

from densessl.benchmark.data import benchmark_data
from densessl.benchmark.end_to_end import benchmark_end_to_end
from densessl.benchmark.loss import benchmark_loss
from densessl.benchmark.measures import benchmark_measures
from densessl.benchmark.report import record, table
from densessl.benchmark.setup import recipe
from densessl.benchmark.step import benchmark_step

__all__ = [
    "benchmark_data",
    "benchmark_end_to_end",
    "benchmark_loss",
    "benchmark_measures",
    "benchmark_step",
    "recipe",
    "record",
    "table",
]
