"""`ctpipe models`: what a store, a folder or another program has in models."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.cli.tables import print_json, print_table
from ctpipe.errors import CtpipeError, NotThereError, UsageError

if TYPE_CHECKING:
    from ctpipe.models import Model, ModelSpec, SegmenterSpec


def add(verbs: Any, verb_of: Callable[..., Any], as_json: Callable[[Any], None]) -> None:
    """The command's grammar; `verb_of` and `as_json` are those of `ctpipe.cli.parser`."""
    verb = verb_of(verbs, "models", "take models of other programs, or list what is there", show_all, """
ctpipe models                                networks and recipes that can be trained
ctpipe models ls S                           and the models of a store, with their licences
ctpipe models show MODEL                     its classes, window, training or origin, and digest
ctpipe models import PATH --out MODEL        nnU-Net v2 results, a MONAI bundle, ONNX or TorchScript, as they are
""")  # fmt: skip
    as_json(verb)
    verb.set_defaults(store=os.environ.get("CTPIPE_STORE"))
    actions = verb.add_subparsers(metavar="ACTION")

    listing = verb_of(actions, "ls", "list networks and recipes, and the models of a store", show_all, """
ctpipe models ls
ctpipe models ls S --json
""")  # fmt: skip
    listing.add_argument("store", metavar="STORE", nargs="?", default=os.environ.get("CTPIPE_STORE"),
                         help="the store's folder (default: $CTPIPE_STORE, if set)")  # fmt: skip
    as_json(listing)

    showing = verb_of(actions, "show", "show what a model's folder holds", show, """
ctpipe models show MODEL
ctpipe models show MODEL --json
""")  # fmt: skip
    showing.add_argument("model", metavar="MODEL", help="folder made by ctpipe train or ctpipe models import")
    as_json(showing)

    taking = verb_of(actions, "import", "take a model of another program as it is", take, """
ctpipe models import Dataset003_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres --out MODEL --licence "CC BY 4.0"
ctpipe models import Dataset003_Liver --configuration 2d --folds 0,1 --out MODEL --licence "CC BY 4.0"
ctpipe models import Dataset003_Liver.zip --folds all --axes SAL --out MODEL --licence "CC BY 4.0"
ctpipe models import spleen_ct_segmentation --out MODEL --licence Apache-2.0
ctpipe models import network.onnx --spec network.toml --out MODEL --licence "CC BY 4.0"
""")  # fmt: skip
    taking.add_argument("path", metavar="PATH",
                        help="nnU-Net's result folder or its zip, a MONAI bundle, an .onnx or TorchScript file")
    taking.add_argument("--out", required=True, metavar="MODEL", help="folder to write")
    taking.add_argument("--licence", metavar="TEXT", help="of the weights; needed where the model does not say it")
    taking.add_argument("--configuration", metavar="NAME", help="of nnU-Net: 2d, 3d_fullres, 3d_lowres")
    taking.add_argument("--folds", type=_folds, metavar="N,...", help="of nnU-Net: 0,1 or all (default: every number)")
    taking.add_argument("--checkpoint", default="checkpoint_final.pth", metavar="NAME",
                        help="file of a fold (default: checkpoint_final.pth)")  # fmt: skip
    taking.add_argument("--axes", metavar="ABC", help="patient sides to which array axes grow, as in SPL, SAL or SAR")
    taking.add_argument("--precision", choices=["float32", "bfloat16"], default="float32",
                        help="of forward passes; bfloat16 is for GPUs, and labels at borders may differ")
    taking.add_argument("--threads", type=int, default=2, metavar="N",
                        help="of torch, part of what decides the last bits (default: 2)")  # fmt: skip
    taking.add_argument("--spec", metavar="FILE.toml", type=Path,
                        help="for ONNX and TorchScript: classes, axes, patch, spacing, normalisation")  # fmt: skip
    taking.add_argument("--trust", action="store_true",
                        help="read TorchScript, or a pickle of more than tensors: that runs what is in it")
    as_json(taking)


def _folds(text: str) -> tuple[str, ...]:
    folds = tuple(part.strip() for part in text.split(","))
    if not all(fold == "all" or fold.isdecimal() for fold in folds):
        raise argparse.ArgumentTypeError("give numbers, as in 0,1, or all")
    return folds


def show_all(args: argparse.Namespace) -> int:
    """Networks and recipes; the models of a store where one is given."""
    from ctpipe.config import recipe_names
    from ctpipe.models import network_names

    document: dict[str, Any] = {"networks": list(network_names()), "recipes": recipe_names()}
    if args.store:
        document["models"] = _models_of(args.store)
    if args.json:
        print_json(document)
        return 0
    print("networks: " + ", ".join(document["networks"]))
    print("recipes:  " + ", ".join(document["recipes"]))
    if args.store:
        print_table(("model", "kind", "network", "classes", "licence"),
                    [(m["digest"], m["kind"], m["network"], ", ".join(m["classes"]), m["licence"] or "not stated")
                     for m in document["models"]])  # fmt: skip
    return 0


def _models_of(store: str) -> list[dict[str, Any]]:
    from ctpipe.models import load_spec
    from ctpipe.store import open_store

    found = []
    for folder in sorted((open_store(store).root / "models").glob("*")):
        try:
            spec = load_spec(folder)
        except NotThereError:  # being written, or left behind
            continue
        except CtpipeError as error:
            print(f"ctpipe: {error}", file=sys.stderr)
            continue
        found.append({"digest": folder.name, "kind": _kind(spec), "network": spec.network,
                      "classes": list(spec.classes), "licence": spec.licence})  # fmt: skip
    return found


def _kind(spec: ModelSpec | SegmenterSpec) -> str:
    from ctpipe.models import SegmenterSpec

    return "segmenter" if isinstance(spec, SegmenterSpec) else "classifier"


def show(args: argparse.Namespace) -> int:
    """What a model's folder holds; a classifier's chain begins with itself."""
    from ctpipe.models import Segmenter, load_model

    model = load_model(args.model)
    if isinstance(model, Segmenter):
        facts = {"digest": model.digest, "kind": "segmenter", "passes": model.passes, **model.spec.as_json()}
        if args.json:
            print_json([facts])
        else:
            _print_segmenter(model.spec, model.digest)
        return 0
    chain = [model]
    while chain[-1].before is not None:
        chain.append(chain[-1].before)
    found = [_classifier_facts(one) for one in chain]
    if args.json:
        print_json(found)
        return 0
    print_table(("digest", "recipe", "network", "window z y x", "classes"),
                [(f["digest"], f["name"], f["network"], _by(f["window"]), ", ".join(f["classes"]))
                 for f in found])  # fmt: skip
    print(json.dumps(found[0]["training"], indent=1))
    return 0


def _classifier_facts(model: Model) -> dict[str, Any]:
    spec = model.spec
    return {"digest": model.digest, "name": model.recipe.name, "kind": "classifier", "network": spec.network,
            "classes": list(spec.classes), "window": spec.window, "channels": spec.channels, "licence": spec.licence,
            "training": spec.training}  # fmt: skip


def _by(sizes: Any) -> str:
    return " x ".join("any" if size is None else f"{size:g}" for size in sizes)


def _print_segmenter(spec: SegmenterSpec, digest: str) -> None:
    scale = spec.normalise
    rows = [
        ("digest", digest), ("network", f"{spec.network}, {spec.dims}-D, {len(spec.folds)} fold(s)"),
        ("classes", ", ".join(f"{number} {name}" for number, name in enumerate(spec.classes, 1))),
        ("axes grow to", spec.axes), ("patch", _by(spec.patch)),
        ("spacing mm", _by(spec.spacing_mm) if spec.spacing_mm else "the volume's"),
        ("HU", f"{scale.scheme}: {scale.low} to {scale.high}, mean {scale.mean:g}, std {scale.std:g}"),
        ("windows", f"{spec.windows}, step {spec.step:g}, weight {spec.weight}, mirrored along {list(spec.mirror)}"),
        ("licence", spec.licence), ("origin", ", ".join(f"{key} {value}" for key, value in spec.origin.items())),
    ]  # fmt: skip
    print_table(("what", "value"), rows)


def take(args: argparse.Namespace) -> int:
    """Write another program's model as a folder of ours."""
    from ctpipe.models import load_spec
    from ctpipe.models.guests import Wishes, import_model

    if args.threads < 1:
        raise UsageError(f"{args.threads} threads compute nothing", "give --threads 1 or more")
    wishes = Wishes(licence=args.licence, configuration=args.configuration, folds=args.folds, axes=args.axes,
                    checkpoint=args.checkpoint, threads=args.threads, precision=args.precision, spec=args.spec,
                    trust=args.trust)  # fmt: skip
    taken = import_model(args.path, wishes)
    model, out = taken.segmenter, Path(args.out)
    if (out / "model.json").exists() and load_spec(out).digest() != model.digest:
        raise UsageError(f"another model lies at {out}", "choose another folder with --out")
    model.save(out)
    for note in taken.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        print_json({"digest": model.digest, "kind": taken.kind, "model": str(out), "licence": model.spec.licence,
                    "classes": list(model.spec.classes), "notes": list(taken.notes)})  # fmt: skip
    else:
        _print_segmenter(model.spec, model.digest)
    return 0
