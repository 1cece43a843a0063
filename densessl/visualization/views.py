"""The views that a config makes of some images, as the method gets them."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config

from densessl.datasets import collate_views
from densessl.engine.config import load_config
from densessl.models.preprocessor import ViewPreprocessor
from densessl.numeric import spaced
from densessl.registry import DATASETS
from densessl.structures import SampleKey
from densessl.transforms.decode import read_image
from densessl.visualization.pictures import grid_of_axes, named_if_broken, show

COLOURS = ("#d55e00", "#0072b2", "#008a63", "#b4578f", "#a87400", "#2b8fc7")
MOST = 10  # views in a row


def show_views(
    config: str | Path | Config,
    images: str | Path | None = None,
    count: int = 4,
    seed: int = 0,
    epoch: int = 0,
    cfg_options: dict | None = None,
) -> Figure:
    """A row for each image: where its crops lie, and the views after all augmentations.

    The views are those that training would make at this seed and epoch, in RGB before they are
    normalised.

    Args:
        config: A pretraining config.
        images: A folder of images or tar shards, instead of the config's.
        count: Images, evenly spaced in the data set.
        seed: Of the random numbers, as ``randomness.seed``.
        epoch: Counted from 0.
        cfg_options: Dotted config keys to override.

    Raises:
        UserError: The config or an image cannot be used.
    """
    cfg = load_config(config, cfg_options, images)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    picked = spaced(len(dataset), count)
    sources = []
    for index in picked:
        with named_if_broken(dataset.path(index)):
            sources.append(read_image(dataset.read(index)))
    keys = [SampleKey(seed, epoch, index) for index in picked]
    recorded = collate_views([dataset[key] for key in keys])
    augment = ViewPreprocessor(mean=(0, 0, 0), std=(255, 255, 255))
    batch = augment(recorded, training=True)["batch"]

    shown = min(len(batch.views), MOST)
    figure, axes = grid_of_axes(len(picked), 1 + shown)
    for row, (index, source) in enumerate(zip(picked, sources, strict=True)):
        more = f", {shown} of {len(batch.views)} views" if shown < len(batch.views) else ""
        show(axes[row, 0], source, Path(dataset.path(index)).name + more)
        for number in range(shown):
            record, colour = batch.records[number], COLOURS[number % len(COLOURS)]
            x0, y0, x1, y1 = record.box[row].tolist()
            frame = dict(fill=False, edgecolor=colour, linewidth=1.5)
            corner = (x0 - 0.5, y0 - 0.5)  # imshow has the pixels' centres at whole numbers
            axes[row, 0].add_patch(Rectangle(corner, x1 - x0, y1 - y0, **frame))
            view = batch.views[number][row].permute(1, 2, 0).clamp(0, 1)
            mirrored = ", mirrored" if record.flip[row] else ""
            show(axes[row, 1 + number], view.numpy(), f"view {number + 1}{mirrored}")
            axes[row, 1 + number].title.set_color(colour)
    return figure
