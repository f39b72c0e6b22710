"""What Prefect's server refuses before a run is made: the patterns in the flows' own parameter schemas."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import is_valid_schema, validate

import flows.evaluate
import flows.infer
import flows.ingest
import flows.post
import flows.train


def faults(flow: Any, parameters: dict[str, Any]) -> list[Any]:
    schema = parameter_schema(flow).model_dump_for_openapi()
    is_valid_schema(schema)
    return validate(parameters, schema, raise_on_error=False)


PLACES = {"source": "/in", "store": "/store"}


@pytest.mark.parametrize(
    "parameters",
    [
        PLACES,
        PLACES | {"source": ["/a", "/b c"]},
        PLACES | {"source": "C:\\in", "store": "s3://bucket/store"},
        PLACES | {"labels": ["/masks"], "classes": "liver=1,livertumor=2"},
        PLACES | {"labels": ["/masks"], "classes": "lesion=1:GTV+GTV 2,liver=2"},
        PLACES | {"labels": ["/masks"], "classes": "/classes.toml"},
        PLACES | {"keep_uids": True},
    ],
)
def test_ingest_takes(parameters):
    assert not faults(flows.ingest.ingest, parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"source": "/in"},
        PLACES | {"source": "in"},
        PLACES | {"source": ["/a", "b"]},
        PLACES | {"source": 3},
        PLACES | {"store": ""},
        PLACES | {"labels": "/masks"},
        PLACES | {"classes": "liver"},
        PLACES | {"classes": "classes.toml"},
        PLACES | {"keep_uids": "perhaps"},
    ],
)
def test_ingest_refuses(parameters):
    assert faults(flows.ingest.ingest, parameters)


def test_a_patient_is_named_by_pseudonym_only():
    """P3: a PatientID typed as a parameter would stay in Prefect's database."""
    given = {"store": "/store", "recipe": "demo", "out": "/model"}
    assert not faults(flows.train.train, given | {"validation_patients": ["p-0123456789abcdef"]})
    assert faults(flows.train.train, given | {"validation_patients": ["4711"]})
    assert faults(flows.train.train, given | {"patients": ["DOE^JANE"]})


def test_a_recipe_is_a_name_or_an_absolute_file():
    given = {"store": "/store", "out": "/model"}
    assert not faults(flows.train.train, given | {"recipe": "vgg-small"})
    assert not faults(flows.train.train, given | {"recipe": "/recipes/my own.toml"})
    assert faults(flows.train.train, given | {"recipe": "mine.toml"})


@pytest.mark.parametrize("steps", ["fill=liver", "largest=liver+lesion; inside=lesion:liver:5 ;min-mm3=lesion:30;"])
def test_post_takes_steps_and_runs(steps):
    given = {"store": "/s", "run": ["4be1aa", "02bd"], "steps": steps}
    assert not faults(flows.post.post, given)
    assert not faults(flows.post.post, given | {"run": "4be1aa", "drop_raw": True})


@pytest.mark.parametrize("wrong", [{"steps": ""}, {"steps": "fill"}, {"steps": "/home/steps.txt"}, {"run": "the last"}])
def test_post_refuses(wrong):
    assert faults(flows.post.post, {"store": "/s", "run": "4be1aa", "steps": "fill=liver"} | wrong)


def test_layers_are_of_a_closed_list():
    given = {"store": "/s", "model": "/m"}
    assert not faults(flows.infer.infer, given | {"layers": ["entropy", "probabilities", "spread"]})
    assert faults(flows.infer.infer, given | {"layers": ["doubt"]})


def test_series_and_runs_are_digests():
    assert not faults(flows.infer.infer, {"store": "/s", "model": "/m", "series": ["7f3a9c"]})
    assert faults(flows.infer.infer, {"store": "/s", "model": "/m", "series": ["1.2.840.1"]})
    assert not faults(flows.evaluate.evaluate, {"store": "/s", "run": "4be1aa"})
    assert faults(flows.evaluate.evaluate, {"store": "/s", "run": "the last one"})
