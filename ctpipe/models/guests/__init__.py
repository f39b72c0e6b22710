"""Models of other programs, taken as they are: nnU-Net v2, MONAI bundles, TorchScript, ONNX.

Nothing of those programs is needed to run a taken model, nothing is imported by a name that a file holds, and nothing
is unpickled in full unless the user says so (docs/decisions/0011).
"""

from ctpipe.models.guests.taking import import_model
from ctpipe.models.guests.wishes import Imported, Wishes

__all__ = ["Imported", "Wishes", "import_model"]
