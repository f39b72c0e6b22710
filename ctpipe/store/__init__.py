"""The store: committed CT volumes and their labels as OME-Zarr, written whole, checked on every read.

Nothing is listed before its group's zarr.json, the commit, is in place; nothing is read that the manifest in it does
not vouch for.
"""

from ctpipe.store.commit import SlabRecord
from ctpipe.store.gc import collect_garbage, remove
from ctpipe.store.layers import Layer
from ctpipe.store.leases import Lease
from ctpipe.store.metadata import LabelsMeta, LayerMeta, VolumeMeta
from ctpipe.store.scratch import PlaneScratch
from ctpipe.store.series import Labels, Series
from ctpipe.store.store import Store, open_store
from ctpipe.store.verify import verify
from ctpipe.store.writer import GroupWriter

__all__ = [
    "GroupWriter",
    "Labels",
    "LabelsMeta",
    "Layer",
    "LayerMeta",
    "Lease",
    "PlaneScratch",
    "Series",
    "SlabRecord",
    "Store",
    "VolumeMeta",
    "collect_garbage",
    "open_store",
    "remove",
    "verify",
]
