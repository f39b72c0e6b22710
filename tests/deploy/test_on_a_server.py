"""The deployments on a real Prefect server: made in two ways, run, refused, and nothing of the patient kept.

One server serves all tests here, in this order; it takes most of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctpipe import deploy
from ctpipe.errors import NotThereError, UsageError

pytestmark = pytest.mark.server

FLOWS = ["evaluate", "export", "infer", "ingest", "patches", "post", "train"]
NAMES = [f"{flow}/local" for flow in FLOWS]
PATIENT = "PLANTEDNAME4711"


@pytest.fixture
def here(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This process uses the server too."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: str(server.home)}):
        yield server


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A series of a patient with a telling name, another of which a plane is missing, and an untrained model."""
    from ctpipe.config import recipe_from_dict
    from ctpipe.dicom import write_ct_series
    from ctpipe.models import Model, build_network
    from ctpipe.volume import Grid

    folder = tmp_path_factory.mktemp("place")
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 1.5], [0, 1.5, 0], [3.0, 0, 0]]
    grid = Grid.from_affine((6, 64, 64), affine, None)
    rng = np.random.default_rng(7)
    hu = rng.integers(-100, 200, grid.shape).astype(np.int16)
    write_ct_series(folder / "good", hu, grid, patient=PATIENT, study_key="study")
    write_ct_series(folder / "gap", hu[::-1].copy(), grid, patient=PATIENT, study_key="other", order=[0, 1, 2, 4, 5])
    recipe = recipe_from_dict(
        {"name": "tiny", "network": "vgg-small", "classes": ["lesion"],
         "windows": {"window": [1, 44, 44], "stride": [1, 16, 16]},
         "train": {"steps": 1, "epochs": 1, "batch": 1},
         "predict": {"stride": [1, 16, 16], "micro_batch": 8}}
    )  # fmt: skip
    network = build_network("vgg-small", 1, 2, recipe.windows.window, {})
    Model.of(recipe, ("lesion",), network).save(folder / "model")
    return {"good": folder / "good", "gap": folder / "gap", "store": folder / "store", "model": folder / "model"}


def on_the_server() -> list[dict[str, Any]]:
    """What decides a run in each deployment: all that the server keeps of it, less ids, times and versions."""
    from prefect.client.orchestration import get_client

    # version: with a git remote it is the commit, which only a checkout has
    volatile = {"id", "created", "updated", "version", "version_id", "version_info", "last_polled", "status"}
    with get_client(sync_client=True) as client:
        found = [entry.model_dump(mode="json", exclude=volatile) for entry in client.read_deployments()]
    return sorted(found, key=lambda entry: entry["entrypoint"])


def delete_all() -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)


def test_without_a_server_there_is_a_cure(monkeypatch, tmp_path):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(UsageError) as caught:
        deploy.status()
    assert "prefect server start" in caught.value.cure
    nobody = {PREFECT_API_URL: "http://user:secret@127.0.0.1:9/api"}
    with temporary_settings(nobody), pytest.raises(UsageError) as caught:
        deploy.run("ingest", {})
    assert "no Prefect server answers at http://127.0.0.1:9/api" in str(caught.value)
    assert "secret" not in str(caught.value)  # X13


def test_a_flow_without_deployment_is_named(here):
    with pytest.raises(NotThereError) as caught:
        deploy.run("ingest", {})
    assert "ctpipe deploy up" in caught.value.cure
    assert deploy.status()["missing"] == NAMES


def test_both_ways_make_the_same_deployments(here, tmp_path, monkeypatch):
    """`prefect deploy` from the repository root, and `ctpipe deploy up` from any other folder."""
    monkeypatch.chdir(tmp_path)
    made = deploy.up()
    assert made["pools"] == {"ct-process": True}
    assert sorted(entry["name"] for entry in made["deployments"]) == NAMES
    ours = on_the_server()
    delete_all()
    assert on_the_server() == []
    here.call("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deploy/prefect.yaml")
    assert on_the_server() == ours
    assert [entry["entrypoint"] for entry in ours] == [f"flows.{flow}.{flow}" for flow in FLOWS]
    assert {entry["work_pool_name"] for entry in ours} == {"ct-process"}
    assert not [entry for entry in ours if entry["pull_steps"] or entry["path"]]  # no folder of this machine
    status = deploy.status()
    assert [entry["name"] for entry in status["deployments"]] == NAMES
    assert status["missing"] == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"sourc": "/in", "store": "/store"}, "sourc"),
        ({"source": "in", "store": "/store"}, "source"),
        ({"source": "/in"}, "store"),
    ],
)
def test_a_wrong_parameter_is_refused_before_a_run_is_made(here, parameters, named):
    before = len(deploy.status()["runs"])
    with pytest.raises(UsageError, match=named):
        deploy.run("ingest", parameters)
    assert len(deploy.status()["runs"]) == before


def test_ingest_runs_by_prefects_own_line(worker, here, place):
    done = here.call("prefect", "deployment", "run", "ingest/local", "--watch", "--param",
                     f"source={place['good']}", "--param", f"store={place['store']}", check=False)  # fmt: skip
    log = here.home / "worker.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-3000:]
    assert "Completed" in done.stdout + done.stderr
    from ctpipe.store import open_store

    assert len(open_store(place["store"])) == 1


def test_infer_runs_by_its_bare_name(worker, here, place):
    told: list[str] = []
    parameters = {"store": str(place["store"]), "model": str(place["model"])}
    done = deploy.run("infer", parameters, watch=True, note=told.append)
    assert done["state"] == "Completed", (done, (here.home / "worker.log").read_text()[-3000:])
    assert done["exit_code"] == 0
    assert done["message"] == "1 volumes labelled"
    assert done["command"].startswith("prefect deployment run infer/local --param ")
    assert told[0] == done["command"]
    from ctpipe.store import open_store

    (series,) = open_store(place["store"]).values()
    assert len(series.labels) == 1


def test_a_segmenter_runs_by_prefects_own_line(worker, here, place, tmp_path):
    from segmenters_made import segmenter

    from ctpipe.store import open_store

    model = segmenter((6, 24, 32), threads=2)
    model.save(tmp_path / "segmenter")
    done = here.call("prefect", "deployment", "run", "infer/local", "--watch", "--param", f"store={place['store']}",
                     "--param", f"model={tmp_path / 'segmenter'}", check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + (here.home / "worker.log").read_text()[-3000:]
    (series,) = open_store(place["store"]).values()
    assert {labels.provenance["model"] for labels in series.labels.values()} >= {model.digest}


def test_post_runs_by_prefects_own_line(worker, here, place):
    """What `ctpipe post` does: labels of their own beside the run's, whose parent they name."""
    from ctpipe.store import open_store

    (series,) = open_store(place["store"]).values()
    before = sorted(series.labels)
    done = here.call("prefect", "deployment", "run", "post/local", "--watch", "--param", f"store={place['store']}",
                     "--param", f"run={before[0]}", "--param", "steps=fill=lesion; min-mm3=lesion:30",
                     check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + (here.home / "worker.log").read_text()[-3000:]
    (made,) = (labels for name, labels in series.labels.items() if name not in before)
    assert made.provenance["parent"] == before[0]
    assert made.provenance["steps"] == ["fill=lesion", "min-mm3=lesion:30"]


def test_a_rejected_series_shows_and_a_run_with_nothing_accepted_fails(worker, here, place):
    """The same flow in this process: what the server keeps of its state is what a worker's run would leave."""
    from flows.ingest import ingest

    partial = ingest([str(place["good"]), str(place["gap"])], str(place["store"]), return_state=True)
    failed = ingest(str(place["gap"]), str(place["store"]), return_state=True)
    assert (partial.type.value, partial.name, partial.message) == ("COMPLETED", "Partial", "1 accept, 1 reject")
    assert (failed.type.value, failed.message) == ("FAILED", "1 reject")
    kept = [(run["state"], run["message"]) for run in deploy.status()["runs"][:2]]
    assert kept == [("Failed", "1 reject"), ("Partial", "1 accept, 1 reject")]


def test_nothing_of_the_patient_is_in_prefect(worker, here, place):
    """P3: neither name nor PatientID in the database, the logs or anything else below Prefect's home."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        logs = client.read_logs()
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    assert logs
    assert "ingest-verdicts" in {entry["key"] for entry in artifacts}
    files = [path for path in here.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    found = [path for path in files if PATIENT.lower().encode() in path.read_bytes().lower()]
    assert found == []
    seen = str(place["store"]).encode()
    assert any(seen in path.read_bytes() for path in files)  # the search finds what is there
