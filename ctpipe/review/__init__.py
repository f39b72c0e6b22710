"""The review of labels in napari: reader, working copies, saved corrections. Importing it imports no napari."""

from ctpipe.review.view import open_live, open_review, require_viewer, review, review_live, snapshot

__all__ = ["open_live", "open_review", "require_viewer", "review", "review_live", "snapshot"]
