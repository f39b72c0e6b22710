"""nnU-Net v2 result folders (and zips of them) as segmenters.

`Dataset003_X/TRAINER__PLANS__CONFIGURATION/{plans.json, dataset.json, fold_0/checkpoint_final.pth, …}`: any folder from
the result's own up to two above it may be given, where the configuration tells several apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from ctpipe.errors import UsageError
from ctpipe.models.guests.checkpoint import read_checkpoint
from ctpipe.models.guests.files import ModelFiles
from ctpipe.models.guests.nnunet_network import fit, weights_of
from ctpipe.models.guests.nnunet_plans import READERS, TOTAL_SEGMENTATOR, spec_values
from ctpipe.models.guests.wishes import Faults, Imported, Wishes
from ctpipe.models.segment_spec import SegmenterSpec, WeightFile
from ctpipe.models.segmenter import Segmenter
from ctpipe.models.segmenter_networks import ModuleScorer

_FOLD = re.compile(r"fold_(all|\d+)")


@dataclass(frozen=True)
class _Fold:
    """What one checkpoint says beside its weights."""

    name: str
    network: Any
    mirror: tuple[int, ...]


def is_nnunet(files: ModelFiles) -> bool:
    """Whether some folder of `files` holds plans.json and a fold."""
    return bool(_results(files))


def import_nnunet(files: ModelFiles, wishes: Wishes) -> Imported:
    """The segmenter of an nnU-Net v2 result folder.

    InputError with all that keeps it from being taken. UsageError: folds, checkpoint or configuration that are not
    there, several configurations and none named, no licence.
    """
    folder = _chosen(files, wishes)
    faults = Faults(str(files.path))
    plans, dataset = (files.json(f"{folder}{name}", faults) for name in ("plans.json", "dataset.json"))
    faults.stop()
    names = _folds(files, folder, wishes)
    checkpoints = {}
    for name in names:
        held = read_checkpoint(files.read(name), _told(name), faults, trust=wishes.trust)
        if held is not None:
            checkpoints[_told(name)] = held if isinstance(held, dict) else {}
    faults.stop()
    configuration = _configuration(checkpoints, folder, wishes, faults)
    values = spec_values(plans, dataset, configuration, wishes.axes, faults)
    folds = [_fold(name, held, values, (plans, dataset, configuration), faults) for name, held in checkpoints.items()]
    if len({fold.mirror for fold in folds if fold}) > 1:
        faults.add("its folds were trained with different mirroring", "import one of them (--folds 0)")
    licence = wishes.licence or str(dataset.get("licence") or dataset.get("license") or "")
    faults.stop()
    if not licence.strip():
        raise UsageError(f"{files.path} does not say under which licence its weights are",
                         'say it: --licence "CC BY 4.0"')
    scorers = [ModuleScorer(fold.network) for fold in folds if fold]
    weights = [scorer.as_bytes() for scorer in scorers]
    spec = SegmenterSpec(
        **values,
        mirror=folds[0].mirror if folds[0] else (),
        folds=tuple(WeightFile(file=f"fold-{n}.safetensors", sha256=sha256(data).hexdigest())
                    for n, data in enumerate(weights)),
        threads=wishes.threads, precision=wishes.precision,
        licence=licence.strip(),
        origin={
            "program": "nnU-Net v2", "dataset": str(plans.get("dataset_name")), "plans": str(plans.get("plans_name")),
            "configuration": configuration, "trainer": str(next(iter(checkpoints.values())).get("trainer_name")),
            "folds": list(checkpoints),
        },
    )  # fmt: skip
    return Imported(Segmenter(spec, scorers), "nnunet", tuple(_notes(files, folder, plans, dataset, spec, wishes)))


def _results(files: ModelFiles) -> list[str]:
    """Folders (with their last /) that hold plans.json and a fold."""
    folders = {name[: -len("plans.json")] for name in files.names if PurePosixPath(name).name == "plans.json"}
    return sorted(folder for folder in folders
                  if any(name.startswith(f"{folder}fold_") for name in files.names))  # fmt: skip


def _chosen(files: ModelFiles, wishes: Wishes) -> str:
    found = _results(files)
    wanted = [folder for folder in found if wishes.configuration in (None, _configuration_of(folder), "")
              or len(found) == 1]  # fmt: skip
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(sorted({_configuration_of(folder) for folder in found}))
    raise UsageError(f"{files.path} holds {len(found)} trained models, {len(wanted)} of them fit",
                     f"choose with --configuration ({names}), or give the folder of one")


def _configuration_of(folder: str) -> str:
    return PurePosixPath(folder).name.rpartition("__")[2]


def _folds(files: ModelFiles, folder: str, wishes: Wishes) -> list[str]:
    """Names of the checkpoints wished for; by default every numbered fold, or fold_all where there is none."""
    found = {}
    for name in files.names:
        parts = PurePosixPath(name.removeprefix(folder)).parts
        if name.startswith(folder) and len(parts) == 2 and parts[1] == wishes.checkpoint:
            match = _FOLD.fullmatch(parts[0])
            if match:
                found[match[1]] = name
    numbered = sorted((fold for fold in found if fold != "all"), key=int)
    wanted = wishes.folds or tuple(numbered) or tuple(found)
    lacking = [fold for fold in wanted if fold not in found]
    if lacking or not wanted:
        raise UsageError(f"{files.path} has no {wishes.checkpoint} of fold {', '.join(lacking) or 'any'}",
                         f"there are: {', '.join([*numbered, *(f for f in found if f == 'all')]) or 'none'}; see "
                         "--folds and --checkpoint")  # fmt: skip
    return [found[fold] for fold in dict.fromkeys(wanted)]


def _told(name: str) -> str:
    """A checkpoint as messages and the spec name it: fold_0/checkpoint_final.pth."""
    return "/".join(PurePosixPath(name).parts[-2:])


def _configuration(checkpoints: dict[str, dict[str, Any]], folder: str, wishes: Wishes, faults: Faults) -> str:
    """What the checkpoints were trained as; what the user says where they say nothing."""
    said = {str(init["configuration"]) for held in checkpoints.values()
            if isinstance(init := held.get("init_args"), dict) and "configuration" in init}  # fmt: skip
    if len(said) > 1 or (said and wishes.configuration and wishes.configuration not in said):
        faults.add(f"its checkpoints are of configuration {' and '.join(sorted(said))}",
                   "give the folds of one configuration, and its name to --configuration")
    return next(iter(sorted(said)), wishes.configuration or _configuration_of(folder))


def _fold(name: str, held: dict[str, Any], values: dict[str, Any], main: tuple[dict[str, Any], dict[str, Any], str],
          faults: Faults) -> _Fold | None:
    """Network and mirroring of a checkpoint; faults where it is none of these plans."""
    if not values:
        return None
    _check_plans(name, held, values, main, faults)
    mirror = _mirror(name, held, values["patch"][0] == 1, faults)
    weights = weights_of(held.get("network_weights"), name, faults)
    if not weights or not values["options"] or not values["network"]:
        return None
    network = fit(weights, values, name, faults)
    return None if network is None else _Fold(name, network, mirror)


def _check_plans(name: str, held: dict[str, Any], values: dict[str, Any],
                 main: tuple[dict[str, Any], dict[str, Any], str], faults: Faults) -> None:
    """The plans and labels that a checkpoint was trained by must say what those beside it say."""
    init = held.get("init_args")
    if not isinstance(init, dict):
        return  # then the names and shapes of weights are all there is to compare
    plans, dataset, configuration = main
    own_plans, own_dataset = init.get("plans"), init.get("dataset_json")
    theirs = Faults(name)
    own = spec_values(own_plans if isinstance(own_plans, dict) else plans,
                      own_dataset if isinstance(own_dataset, dict) else dataset,
                      configuration, values["axes"] if len(values["axes"]) == 3 else None, theirs)  # fmt: skip
    # stated axes go before transposing here as well: they differ, and are no part of what is compared
    differing = sorted(key for key in own.keys() | values.keys() if key != "axes" and own.get(key) != values.get(key))
    turned = isinstance(own_plans, dict) and own_plans.get("transpose_forward") != plans.get("transpose_forward")
    if theirs.found or differing or turned:
        what = ", ".join([*differing, *(["transpose_forward"] if turned else [])]) or "what is refused in them"
        faults.add(f"{name} was trained by other plans or labels than lie beside it ({what})",
                   "give plans.json and dataset.json of that training, and folds of one training only")


def _mirror(name: str, held: dict[str, Any], flat: bool, faults: Faults) -> tuple[int, ...]:
    """Network axes of mirroring at inference, as the checkpoint has them; the two of a 2-D network are our last two."""
    stated = held.get("inference_allowed_mirroring_axes")
    if stated is None or str(held.get("trainer_name")).endswith("NoMirroring"):
        return ()
    axes: list[Any] = list(stated) if isinstance(stated, list | tuple) else [None]
    if not all(isinstance(axis, int) and 0 <= axis < (2 if flat else 3) for axis in axes):
        faults.add(f"{name} mirrors along axes that its network does not have", "copy the whole model again")
        return ()
    return tuple(sorted({axis + flat for axis in axes}))


def _notes(files: ModelFiles, folder: str, plans: dict[str, Any], dataset: dict[str, Any], spec: SegmenterSpec,
           wishes: Wishes) -> list[str]:
    notes = []
    total = TOTAL_SEGMENTATOR.search(str(plans.get("dataset_name")))
    reader = plans.get("image_reader_writer")
    if wishes.axes is None and not total and READERS.get(str(reader)) == "SPL":
        notes.append("axes are taken as of files made of axial DICOM without flipping (SPL); for files of dcm2niix, "
                     "which flips rows, import with --axes SAL")
    if "ignore" in (dataset.get("labels") or {}):
        notes.append("its label `ignore` is one of training; it is never predicted")
    above = "/".join(PurePosixPath(folder).parts[:-1])
    if any(PurePosixPath(name).name == "postprocessing.json" and name.startswith(above) for name in files.names):
        notes.append("nnU-Net chose a post-processing for it (postprocessing.json), which is not run; see ctpipe post")
    if spec.origin["configuration"] == "3d_lowres":
        notes.append("3d_lowres is taken as a model of its own; the second stage of its cascade is not run")
    return notes

