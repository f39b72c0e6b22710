"""Reduce: scores at strided centres become a label for every voxel, in integers, so that no order changes bytes."""

from ctpipe.reduce.labels import centre_planes, label_planes, refine

__all__ = ["centre_planes", "label_planes", "refine"]
