"""Images in tar files, for data sets of more files than a disk or a network share likes.

A shard is a plain tar file as webdataset reads it. Beside it lies an index of where each image's
bytes begin, so that any image is one read away: order, ranks, workers and resuming are those of a
folder, and so are the views.
"""

import json
import os
import tarfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from densessl.datasets.images import ImageDataset, existing, files_below, is_image, walk_images
from densessl.errors import UserError
from densessl.files import make_folder, open_atomically
from densessl.registry import DATASETS
from densessl.transforms.decode import ImageError

FORMAT = "densessl-shard/3"
UNFINISHED = "shards.unfinished"  # lies beside shards for as long as not all of them are written
COUNT = "shards.count"  # then how many there are


@DATASETS.register_module()
class TarShards(ImageDataset):
    """Every image in the uncompressed ``.tar`` files below a folder, in the order of their names.

    An index, ``NAME.tar.idx``, is made where it is missing or older than its shard; in a folder
    that cannot be written to it is made anew each time.
    """

    def list_files(self) -> list[str]:
        root = existing(self.root, "The folder of shards")
        said = files_below(root, lambda name: is_shard(name) or name in (UNFINISHED, COUNT))
        found = sorted(root / name for name in said)
        self.shards = [str(file) for file in found if is_shard(file.name)]
        check_all_there(found)
        if not self.shards:
            raise UserError(
                f"There is no .tar file in {root}.",
                "write some with tools/shard.py IMAGES OUT, or name a folder of images as "
                "ImageFolder",
            )
        indices = [read_index(shard) for shard in self.shards]
        counts = [len(index["names"]) for index in indices]
        self._shard = np.repeat(np.arange(len(counts)), counts)
        self._offset, self._size = (
            np.concatenate([np.asarray(index[key], np.int64) for index in indices])
            for key in ("offsets", "sizes")
        )
        return [name for index in indices for name in index["names"]]

    def path(self, index: int) -> str:
        return f"{self.shards[self._shard[index]]}/{self.files[index]}"

    def read(self, index: int) -> bytes:
        """See ``ImageDataset``."""
        size = int(self._size[index])
        try:
            with open(self.shards[self._shard[index]], "rb") as file:
                file.seek(int(self._offset[index]))
                data = file.read(size)
        except OSError as error:
            raise ImageError(self.path(index), error.strerror or str(error)) from error
        if len(data) < size:
            raise ImageError(self.path(index), "the shard ends before the image does")
        return data


def is_shard(name: str) -> bool:
    """Whether the name is an uncompressed tar file's, and no dot hides it."""
    return name.endswith(".tar") and not name.startswith(".")


def check_all_there(found: list[Path]) -> None:
    """Checks the shards among ``found`` against what ``write_shards`` has left beside them.

    Raises:
        UserError: Shards are missing.
    """
    counts = Counter(file.parent for file in found if is_shard(file.name))
    for file in found:
        if file.name == UNFINISHED:
            raise UserError(
                f"The shards in {file.parent} are not all: tools/shard.py was stopped there.",
                "remove them and write them again",
            )
    for file in found:
        if file.name != COUNT:
            continue
        written = file.read_bytes().strip()
        # What is no number cannot say that all are there.
        if not written.isdigit() or counts[file.parent] < int(written):
            raise UserError(
                f"{counts[file.parent]} shards are in {file.parent}, and {COUNT} says "
                f"{written[:20].decode(errors='replace')!r}.",
                f"copy all of them, or remove {COUNT} to train on these",
            )


def read_index(shard: str | Path) -> dict[str, list]:
    """Names, offsets and sizes of the images in ``shard``, from its index or for it.

    Raises:
        UserError: If the shard is no uncompressed tar file, or is cut short.
    """
    shard = Path(shard)
    beside, state = Path(f"{shard}.idx"), shard.stat()
    try:
        index = json.loads(beside.read_text())
        fits = index["format"] == FORMAT and index["bytes"] == state.st_size
        if fits and beside.stat().st_mtime_ns >= state.st_mtime_ns and is_of(index, shard):
            return index
    except (OSError, ValueError, KeyError, TypeError):
        pass
    index = make_index(shard)
    with suppress(UserError), open_atomically(beside) as file:  # not in a folder of somebody else's
        file.write(json.dumps(index).encode())
    return index


def is_of(index: dict[str, list], shard: Path) -> bool:
    """Whether the headers before the first, middle and last image are ``shard``'s.

    A shard that was moved onto another one may have its size, which tar fills up, and its age.
    """
    sizes, offsets = index["sizes"], index["offsets"]
    with open(shard, "rb") as file:
        for place in {0, len(sizes) // 2, len(sizes) - 1} if sizes else ():
            file.seek(offsets[place] - tarfile.BLOCKSIZE)
            try:
                header = tarfile.TarInfo.frombuf(
                    file.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape"
                )
            except tarfile.HeaderError:
                return False
            if header.size != sizes[place]:
                return False
    return True


def make_index(shard: Path) -> dict[str, list]:
    """Walks through ``shard``; see ``read_index``."""
    try:
        with tarfile.open(shard, "r:") as tar:
            found = {member.name: member for member in tar}
            # The walk ends without a word at a header that is cut or damaged, too.
            tar.fileobj.seek(tar.offset)
            whole = tar.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        raise UserError(
            f"{shard} cannot be read as an uncompressed tar file: {error}",
            "write it again, with tools/shard.py or tar -cf",
        ) from error
    # A file that tar met under two names is a hard link the second time: the first has the bytes.
    images = {
        name: found.get(member.linkname, member) if member.islnk() else member
        for name, member in found.items()
        if is_image(name) and not member.isdir() and not is_hidden(name)
    }
    size = shard.stat().st_size
    if not whole or any(member.offset_data + member.size > size for member in images.values()):
        raise UserError(f"{shard} is cut short or damaged.", "copy or write it again")
    links = [name for name, member in images.items() if not member.isfile()]
    if links:
        raise UserError(
            f"{shard} holds links in the place of {len(links)} images, such as {links[0]}.",
            "write it with tools/shard.py, which copies what links lead to",
        )
    return dict(
        format=FORMAT,
        bytes=size,
        names=list(images),
        offsets=[member.offset_data for member in images.values()],
        sizes=[member.size for member in images.values()],
    )


def is_hidden(name: str) -> bool:
    """Whether a folder in the name begins with a dot, as ``files_below`` leaves them out."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def write_shards(images: str | Path, out: str | Path, per_shard: int = 10_000) -> list[Path]:
    """Copies all images below a folder into shards, bytes and order as they are.

    Args:
        images: The folder.
        out: A folder for the shards; made if there is none.
        per_shard: Images in each shard; the last one gets the rest.

    Returns:
        The shards.

    Raises:
        UserError: If there are no images, or shards already, or ``out`` cannot be made, or an
            image cannot be copied; whole shards from before that remain.
    """
    root, out = existing(images, "The image folder"), Path(out)
    names = walk_images(root)
    if not names:
        raise UserError(f"No images found in {root}.", "name the folder that they are in")
    if any(out.glob("*.tar")):
        left = ", of a run that was stopped" if (out / UNFINISHED).exists() else ""
        raise UserError(
            f"{out} holds .tar files already{left}.",
            "remove them and run the command again" if left else "name another folder",
        )
    (make_folder(out) / UNFINISHED).touch()
    shards = []
    for start in range(0, len(names), per_shard):
        shard = out / f"shard-{start // per_shard:06}.tar"
        partial = shard.with_suffix(".part")
        try:
            with tarfile.open(partial, "w") as tar:
                for name in names[start : start + per_shard]:
                    # Not the owner, the times and the rights: the same images make the same file.
                    entry = tarfile.TarInfo(name)
                    with open(root / name, "rb") as file:
                        entry.size = os.fstat(file.fileno()).st_size
                        tar.addfile(entry, file)
            os.replace(partial, shard)
        except OSError as error:
            about = f" ({error.filename})" if error.filename else ""
            raise UserError(
                f"{shard} could not be written: {error.strerror or error}{about}. "
                f"Whole shards that remain in {out}: {len(shards)}.",
                f"mend that (a full disk: free some space), remove the shards in {out} or name "
                "another folder, and run it again",
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        read_index(shard)
        shards.append(shard)
    (out / COUNT).write_text(str(len(shards)))
    (out / UNFINISHED).unlink()
    return shards
