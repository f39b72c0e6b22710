"""nnU-Net v2 result folders become segmenters that score what nnU-Net's network scores, or are refused with reasons.

Promises: I1 (NaN in weights), I2 (the model card), X3 (nothing is unpickled in full unasked), X4 (members of a zip).
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_made import checkpoint, dataset, forward, plans, result_folder, state

from ctpipe.errors import InputError, NotThereError, UsageError
from ctpipe.models import Normalisation, Resampling, load_model
from ctpipe.models.guests import Imported, Wishes, import_model


def taken(folder: Path, **wishes: Any) -> Imported:
    return import_model(folder, Wishes(**{"threads": 1} | wishes))


def settings_of(told: dict[str, Any]) -> dict[str, Any]:
    return next(iter(told["configurations"].values()))


def refusal(folder: Path, **wishes: Any) -> str:
    with pytest.raises(InputError) as error:
        taken(folder, **wishes)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------ what is taken
@pytest.mark.parametrize(("dims", "residual"), [(3, False), (2, False), (3, True), (2, True)])
def test_scores_are_those_of_nnunets_network(dims: int, residual: bool, tmp_path: Path) -> None:
    model = taken(result_folder(tmp_path, dims, residual, mirror=None)).segmenter
    windows = np.random.default_rng(0).normal(size=(2, *model.spec.patch)).astype(np.float32)
    batch = torch.from_numpy(windows)[:, None]
    wanted = forward(state(dims, residual), batch[:, :, 0] if dims == 2 else batch, residual).numpy()
    found = model.scores(windows).scores
    assert np.abs(found.reshape(wanted.shape) - wanted).max() < 1e-4  # rounding, through two norms a stage
    assert wanted.std() > 0.1


def test_every_field_of_the_spec_is_what_plans_and_checkpoint_say(tmp_path: Path) -> None:
    spec = taken(result_folder(tmp_path, 3, folds=(0, 1), mirror=(0, 2)), threads=1).segmenter.spec
    assert (spec.network, spec.outputs, spec.classes, spec.regions) == ("plain-conv-unet", 3, ("liver", "lesion"), ())
    assert (spec.axes, spec.patch, spec.spacing_mm) == ("SPL", (8, 12, 16), (3.0, 2.0, 1.5))
    assert spec.normalise == Normalisation(low=20.0, high=170.0, mean=95.0, std=25.0)
    assert spec.normalise_first
    assert spec.resample_in == Resampling(order=3, separate="auto", order_separate=0)
    assert spec.resample_out == Resampling(order=1, separate="auto", order_separate=0)
    assert (spec.crop, spec.windows, spec.step, spec.weight) == ("nonzero", "nnunet", 0.5, "gaussian-middle")
    assert (spec.blend, spec.mirror, len(spec.folds), spec.threads) == ("logits", (0, 2), 2, 1)
    assert spec.licence == "CC BY 4.0"
    assert spec.origin["dataset"] == "Dataset900_Made"
    assert str(tmp_path) not in json.dumps(spec.as_json())


def test_a_2d_model_keeps_the_distance_of_planes(tmp_path: Path) -> None:
    spec = taken(result_folder(tmp_path, 2, mirror=(0, 1))).segmenter.spec
    assert (spec.dims, spec.patch, spec.spacing_mm, spec.mirror) == (2, (1, 16, 12), (None, 1.5, 2.0), (1, 2))


def test_an_imported_model_is_saved_and_loaded_with_the_same_bytes(tmp_path: Path) -> None:
    model = taken(result_folder(tmp_path, 3, folds=(0, 1))).segmenter
    model.save(tmp_path / "m")
    again = load_model(tmp_path / "m")
    windows = np.random.default_rng(0).normal(size=(1, *model.spec.patch)).astype(np.float32)
    assert again.digest == model.digest
    assert np.array_equal(again.scores(windows).scores, model.scores(windows).scores)


@pytest.mark.parametrize(("reader", "name", "stated", "turn", "axes"), [
    ("SimpleITKIO", "Dataset003_Liver", None, [0, 1, 2], "SPL"),
    ("SimpleITKIO", "Dataset003_Liver", None, [2, 0, 1], "LSP"),
    ("SimpleITKIO", "Dataset003_Liver", "SAL", [1, 2, 0], "ALS"),
    ("NibabelIOWithReorient", "Dataset003_Liver", None, [0, 1, 2], "SAR"),
    ("SimpleITKIO", "Dataset297_TotalSegmentator_total_3mm_1559subj", None, [0, 1, 2], "SAR"),
    ("OwnReader", "Dataset003_Liver", "zyx", [0, 1, 2], "zyx"),
])  # fmt: skip
def test_axes_follow_reader_data_set_and_transposing(reader: str, name: str, stated: str | None, turn: list[int],
                                                     axes: str, tmp_path: Path) -> None:
    told = plans() | {"image_reader_writer": reader, "dataset_name": name, "transpose_forward": turn}
    assert taken(result_folder(tmp_path, told=told), axes=stated).segmenter.spec.axes == axes


def test_totalsegmentators_total_steps_wider_and_is_not_mirrored(tmp_path: Path) -> None:
    told = plans() | {"dataset_name": "Dataset291_TotalSegmentator_part1_organs_1559subj"}
    spec = taken(result_folder(tmp_path, told=told, trainer_name="nnUNetTrainerNoMirroring")).segmenter.spec
    assert (spec.step, spec.mirror) == (0.8, ())
    told["dataset_name"] = "Dataset299_TotalSegmentator_body_1559subj"
    assert taken(result_folder(tmp_path, told=told)).segmenter.spec.step == 0.5


def test_old_plans_give_the_same_network(tmp_path: Path) -> None:
    new = taken(result_folder(tmp_path / "new", mirror=None)).segmenter
    told = plans()
    settings = settings_of(told)
    arguments = settings.pop("architecture")["arch_kwargs"]
    settings |= {
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"], "num_pool_per_axis": [1, 2, 2],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": arguments["kernel_sizes"], "pool_op_kernel_sizes": arguments["strides"],
    }  # fmt: skip
    old = taken(result_folder(tmp_path / "old", told=told, mirror=None)).segmenter
    assert old.spec.options == new.spec.options
    assert old.digest == new.digest
    settings["UNet_base_num_features"] = 6
    assert "another shape" in refusal(result_folder(tmp_path / "wider", told=told))


def test_what_a_configuration_inherits_is_part_of_it(tmp_path: Path) -> None:
    told = plans()
    base = settings_of(told)
    told["configurations"] = {"base": base, "3d_fullres": {"inherits_from": "base", "spacing": [2.0, 2.0, 2.0]}}
    spec = taken(result_folder(tmp_path, told=told)).segmenter.spec
    assert (spec.spacing_mm, spec.patch) == ((2.0, 2.0, 2.0), (8, 12, 16))
    told["configurations"]["base"] = {"inherits_from": "3d_fullres"}
    assert "configuration" in refusal(result_folder(tmp_path, told=told))


def test_prefixes_of_parallel_and_compiled_training_are_taken_off(tmp_path: Path) -> None:
    plain = taken(result_folder(tmp_path / "a")).segmenter
    weights = {f"module._orig_mod.{name}": value for name, value in state().items()}
    wrapped = taken(result_folder(tmp_path / "b", network_weights=weights)).segmenter
    assert wrapped.digest == plain.digest


def test_regions_become_heads_that_paint_labels_in_order(tmp_path: Path) -> None:
    data = dataset(labels={"background": 0, "organ": [1, 2], "lesion": [2]}, regions_class_order=[1, 2])
    spec = taken(result_folder(tmp_path, data=data, outputs=2)).segmenter.spec
    assert (spec.outputs, spec.regions, spec.classes) == (2, (1, 2), ("organ", "lesion"))


def test_the_ignore_label_is_no_class(tmp_path: Path) -> None:
    data = dataset(labels={"background": 0, "liver": 1, "lesion": 2, "ignore": 3})
    found = taken(result_folder(tmp_path, data=data))
    assert found.segmenter.spec.classes == ("liver", "lesion")
    assert any("ignore" in note for note in found.notes)


@pytest.mark.parametrize(("functions", "wanted_in", "wanted_out"), [
    (("resample_torch_fornnunet", {"force_separate_z": False}),
     Resampling(order=1, separate="never"), Resampling(order=1, separate="never")),
    (("resample_torch_simple", {"memefficient_seg_resampling": False}),
     Resampling(order=1, separate="never"), Resampling(order=1, separate="never")),
    (("resample_data_or_seg_to_shape", {"order": 1, "order_z": 1, "force_separate_z": True}),
     Resampling(order=1, separate="always", order_separate=1),
     Resampling(order=1, separate="always", order_separate=1)),
])  # fmt: skip
def test_resampling_functions_are_known_by_name(functions: tuple[str, dict[str, Any]], wanted_in: Resampling,
                                                wanted_out: Resampling, tmp_path: Path) -> None:
    told = plans()
    for what in ("data", "probabilities"):
        settings_of(told)[f"resampling_fn_{what}"] = functions[0]
        settings_of(told)[f"resampling_fn_{what}_kwargs"] = functions[1]
    spec = taken(result_folder(tmp_path, told=told)).segmenter.spec
    assert (spec.resample_in, spec.resample_out) == (wanted_in, wanted_out)


def test_no_resampling_leaves_the_volumes_spacing(tmp_path: Path) -> None:
    told = plans()
    for what in ("data", "probabilities"):
        settings_of(told)[f"resampling_fn_{what}"] = "no_resampling_hack"
    assert taken(result_folder(tmp_path, told=told)).segmenter.spec.spacing_mm is None


@pytest.mark.parametrize(("scheme", "wanted"), [
    ("ZScoreNormalization", Normalisation(scheme="volume")), ("NoNormalization", Normalisation()),
    ("RescaleTo01Normalization", Normalisation(scheme="range")),
])  # fmt: skip
def test_normalisations_are_known_by_name(scheme: str, wanted: Normalisation, tmp_path: Path) -> None:
    told = plans()
    settings_of(told)["normalization_schemes"] = [scheme]
    assert taken(result_folder(tmp_path, told=told)).segmenter.spec.normalise == wanted


def test_a_zip_of_the_results_gives_the_same_model(tmp_path: Path) -> None:
    folder = result_folder(tmp_path / "r", 3, folds=(0, 1))
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "r"))
    assert taken(tmp_path / "m.zip").segmenter.digest == taken(folder).segmenter.digest


def test_folds_and_configurations_are_chosen(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, 3, folds=(0, 1, "all"))
    result_folder(tmp_path, 2)
    assert len(taken(folder).segmenter.networks) == 2  # the numbered ones
    assert len(taken(folder, folds=("all",)).segmenter.networks) == 1
    assert taken(tmp_path, configuration="2d").segmenter.spec.dims == 2
    with pytest.raises(UsageError, match="2d, 3d_fullres"):
        taken(tmp_path)
    with pytest.raises(UsageError, match="fold 7"):
        taken(folder, folds=("0", "7"))
    with pytest.raises(UsageError, match="checkpoint_best"):
        taken(folder, checkpoint="checkpoint_best.pth")


def test_a_licence_is_needed(tmp_path: Path) -> None:
    data = dataset()
    del data["licence"]
    folder = result_folder(tmp_path, data=data)
    with pytest.raises(UsageError, match="licence"):
        taken(folder)
    assert taken(folder, licence="CC0").segmenter.spec.licence == "CC0"


# ---------------------------------------------------------------------------------------------------- what is refused
def _architecture(**changes: Any) -> dict[str, Any]:
    told = plans()
    settings_of(told)["architecture"]["arch_kwargs"] |= changes
    return told


def _settings(**changes: Any) -> dict[str, Any]:
    told = plans()
    settings_of(told).update(changes)
    return told


def _class(name: str) -> dict[str, Any]:
    told = plans()
    settings_of(told)["architecture"]["network_class_name"] = name
    return told


MISMATCHES = {
    "two channels": ({"data": dataset(channel_names={"0": "CT", "1": "PET"})}, "2 channels"),
    "no CT": ({"data": dataset(channel_names={"0": "MRI"}),
               "told": _settings(normalization_schemes=["ZScoreNormalization"])}, "'MRI'"),
    "one class too many": ({"data": dataset(labels={"background": 0, "a": 1, "b": 2, "c": 3})}, "3 heads where"),
    "one class too few": ({"data": dataset(labels={"background": 0, "a": 1})}, "3 heads where"),
    "a gap in labels": ({"data": dataset(labels={"background": 0, "a": 1, "b": 3})}, "gap"),
    "no background": ({"data": dataset(labels={"a": 0, "b": 1})}, "background"),
    "regions without order": ({"data": dataset(labels={"background": 0, "a": [1, 2], "b": 2})}, "regions"),
    "spacing 0": ({"told": _settings(spacing=[0.0, 1.0, 1.0])}, "spacing"),
    "spacing in metres": ({"told": _settings(spacing=[3000.0, 1.0, 1.0])}, "spacing"),
    "spacing of two axes": ({"told": _settings(spacing=[1.0, 1.0])}, "spacing"),
    "patch of one axis": ({"told": _settings(patch_size=[8])}, "patch"),
    "patch that cannot be halved": ({"told": _settings(patch_size=[8, 13, 16])}, "halved"),
    "axes": ({"told": plans() | {"transpose_forward": [0, 1, 1]}}, "transpose_forward"),
    "an unknown reader": ({"told": plans() | {"image_reader_writer": "TifIO"}}, "'TifIO'"),
    "mirroring beyond the axes": ({"mirror": (0, 3)}, "mirrors"),
    "an unknown network": ({"told": _class("os.system")}, "'os.system'"),
    "an unknown norm": ({"told": _architecture(norm_op="torch.nn.GroupNorm")}, "GroupNorm"),
    "an unknown nonlinearity": ({"told": _architecture(nonlin="builtins.exec")}, "'builtins.exec'"),
    "an unknown option": ({"told": _architecture(attention=True)}, "attention"),
    "a convolution of other dims": ({"told": _architecture(conv_op="torch.nn.Conv2d")}, "Conv2d"),
    "an unknown resampling": ({"told": _settings(resampling_fn_data="my_resample")}, "'my_resample'"),
    "an unknown order": ({"told": _settings(resampling_fn_data_kwargs={"order": 5})}, "orders 0, 1 and 3"),
    "an unknown normalisation": ({"told": _settings(normalization_schemes=["MyNorm"])}, "MyNorm"),
    "no intensities": ({"told": plans() | {"foreground_intensity_properties_per_channel": {}}}, "intensities"),
    "a mask": ({"told": _settings(normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[True])}, "mask"),
    "a cascade": ({"told": _settings(previous_stage="3d_lowres")}, "cascade"),
    "a stage too many": ({"told": _architecture(n_stages=4)}, "different lengths"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_mismatch_is_refused_by_name(case: str, tmp_path: Path) -> None:  # I2
    changes, said = MISMATCHES[case]
    assert said in refusal(result_folder(tmp_path, **changes))


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    told = _settings(spacing=[0.0, 1.0, 1.0], resampling_fn_data="my_resample")
    data = dataset(channel_names={"0": "CT", "1": "CT"})
    said = refusal(result_folder(tmp_path, told=told, data=data))
    for part in ("spacing", "my_resample", "2 channels"):
        assert part in said


def test_weights_that_are_nan_or_differ_where_they_are_stored_twice_are_refused(tmp_path: Path) -> None:  # I1
    weights = state()
    weights["encoder.stages.1.0.convs.0.conv.weight"] = weights["encoder.stages.1.0.convs.0.conv.weight"] + 1
    assert "twice" in refusal(result_folder(tmp_path / "a", network_weights=weights))
    weights = {name: value.clone() for name, value in state().items()}
    weights["decoder.seg_layers.1.bias"][0] = float("nan")
    said = refusal(result_folder(tmp_path / "b", network_weights=weights))
    assert "head.bias" in said
    assert "NaN" in said


def test_folds_of_other_plans_or_labels_are_refused(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, folds=(0, 1))
    told = plans()
    settings_of(told)["spacing"] = [3.0, 2.0, 2.0]
    other = checkpoint(state(seed=1), 3, told, dataset(), (0, 1))
    torch.save(other, folder / "fold_1" / "checkpoint_final.pth")
    said = refusal(folder)
    assert "fold_1" in said
    assert "spacing_mm" in said
    other = checkpoint(state(seed=1), 3, plans(), dataset(labels={"background": 0, "lesion": 1, "liver": 2}), (0, 1))
    torch.save(other, folder / "fold_1" / "checkpoint_final.pth")
    assert "classes" in refusal(folder)
    torch.save(checkpoint(state(seed=1), 3, plans(), dataset(), (0,)), folder / "fold_1" / "checkpoint_final.pth")
    assert "mirroring" in refusal(folder)


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = result_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(broken)
        assert "checkpoint_final.pth" in refusal(folder)
    (folder / "dataset.json").write_text("[]")
    assert "dataset.json" in refusal(folder)
    with pytest.raises(NotThereError):
        taken(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "no model" in refusal(tmp_path / "empty")


# ------------------------------------------------------------------------------------------------------------- canary
class _Canary:
    """Unpickled in full, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_runs_none_and_is_named(tmp_path: Path) -> None:  # X3
    canary = tmp_path / "canary"
    folder = result_folder(tmp_path, logging={"hook": _Canary(canary)})
    said = refusal(folder)
    assert "posix.mkdir" in said
    assert "--trust" in said
    assert not canary.exists()
    taken(folder, trust=True)  # what the user asked for
    assert canary.exists()


def test_an_old_pickle_and_a_zip_of_one_run_no_code(tmp_path: Path) -> None:  # X3
    canary = tmp_path / "canary"
    folder = result_folder(tmp_path / "r")
    path = folder / "fold_0" / "checkpoint_final.pth"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"network_weights": _Canary(canary)}, protocol))
        assert "checkpoint_final.pth" in refusal(folder)
    torch.save({"network_weights": _Canary(canary)}, path, _use_new_zipfile_serialization=False)
    assert "checkpoint_final.pth" in refusal(folder)
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in sorted(folder.rglob("*")):
            archive.write(name, name.relative_to(tmp_path / "r"))
    assert "checkpoint_final.pth" in refusal(tmp_path / "m.zip")
    assert not canary.exists()


def test_a_zip_with_unsafe_names_is_refused_whole(tmp_path: Path) -> None:  # X4
    folder = result_folder(tmp_path / "r")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in sorted(folder.rglob("*")):
            archive.write(name, name.relative_to(tmp_path / "r"))
        archive.writestr("../canary", "x")
    assert "unsafe" in refusal(tmp_path / "m.zip")
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path.parent / "canary").exists()
