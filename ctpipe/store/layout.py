"""Names, shapes and keys of the store: what lies where, and nothing about how it gets there."""

from __future__ import annotations

import re

from ctpipe.errors import UsageError
from ctpipe.volume import Level, Slab
from ctpipe.words import ZYX

FORMAT = 1  # of the store; readers refuse a higher one
MARKER = "ctpipe.json"
SUFFIX = ".ome.zarr"
PARTIAL = ".partial"  # what a killed writer leaves; never read, swept by gc
COMMIT = "zarr.json"  # of a group: written last
INDEX = "index.sqlite"  # of source files; a cache, never needed
LABELS, PLANES, LEASES, RUNS, REVIEWS = "labels", "planes", "leases", "runs", "reviews"
LAYERS = "layers"  # of runs, beside the labels
TABLES, TABLE_DOCUMENT = "tables", "table.json"  # saved patch tables; the document is written last

# Inner chunk of every shard, voxels (z, y, x): axial, coronal and sagittal planes all stay cheap to read.
CHUNK = ZYX(16, 128, 128)
FILL_HU = -1024  # air: what a reader that knows no manifest sees where a shard is missing
FILL_LABEL = 0  # of layers too

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
# lease names of the image and the labels' index; aliases of the newest truth and the newest review
_TAKEN = {"image", "index", "truth", "review"}


def checked_name(name: str, what: str) -> str:
    """`name`, if it can be a file name that means the same on every system; UsageError else."""
    if not _NAME.fullmatch(name) or name.endswith((PARTIAL, SUFFIX, ".json")) or name in _TAKEN:
        raise UsageError(f"{what} is not a name that the store can hold", "give letters, digits, '.', '_' or '-'")
    return name


def volume_target(series_id: str) -> str:
    """Target (path below the store) of the image of one volume."""
    return f"{series_id}{SUFFIX}"


def labels_target(series_id: str, name: str) -> str:
    """Target of one label group of a volume."""
    return f"{series_id}{SUFFIX}/{LABELS}/{name}"


def layers_target(series_id: str, run: str) -> str:
    """Target of all layers of one run: one writer makes them together."""
    return f"{series_id}{SUFFIX}/{LAYERS}/{run}"


def lease_name(target: str) -> str:
    """File of the lease of a target: `<id>-image.json`, `<id>-<labels name>.json` or `<id>-layers-<run>.json`."""
    series_id, _, rest = target.partition(SUFFIX)
    return f"{series_id}-{rest.removeprefix(f'/{LABELS}/').strip('/').replace('/', '-') or 'image'}.json"


def index_lease_name(series_id: str) -> str:
    """File of the short lock under which labels of one volume are committed and listed."""
    return f"{series_id}-index.json"


def chunk_shape(level: Level) -> ZYX:
    """Inner chunk of a level, (z, y, x); a shard of few planes has thinner chunks."""
    return ZYX(min(CHUNK.z, level.slab_planes), CHUNK.y, CHUNK.x)


def shard_shape(level: Level) -> ZYX:
    """One slab of the level, all of y and x in whole chunks."""
    _, y, x = level.grid.shape
    return ZYX(level.slab_planes, -(-y // CHUNK.y) * CHUNK.y, -(-x // CHUNK.x) * CHUNK.x)


def shard_file(index: int) -> str:
    """File of a slab's shard below its array (Zarr v3 default chunk keys)."""
    return f"c/{index}/0/0"


def slab_text(slab: Slab) -> str:
    """For messages: which planes a shard holds."""
    return f"planes {slab.start}-{slab.stop - 1}"
