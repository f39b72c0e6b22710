"""What a flow accepts. Prefect's server checks these patterns before it makes a run, so a wrong value costs nothing.

Parameters stay in Prefect's database and are shown in its UI: they are paths, digests and pseudonyms, never a patient's
name or number. A run works in a folder of the worker's own, hence no relative paths.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

ABSOLUTE_PATH = r"^(/|[A-Za-z]:[\\/]|[a-z][a-z0-9+]*://).+$"
DIGEST = r"^[0-9a-f]{4,64}$"
PATIENT = r"^p-[0-9a-f]{4,16}$"
RECIPE = r"^([A-Za-z0-9_-]+|(/|[A-Za-z]:[\\/]).+\.toml)$"
LABELS = r"^(truth(-[0-9a-f]+)?|review-[0-9A-Za-z-]+|[0-9a-f]{4,64})$"
STEPS = r"^\s*[a-z0-9-]+=[^;=/\\]+(;\s*([a-z0-9-]+=[^;=/\\]+)?)*$"
TARGET = r"^(pacs(\+tls)?|dicomweb\+https?)://[^?#]+(\?aet=[A-Za-z0-9_.-]{1,16})?$"
CLASSES = r"^([^/\\]+=[0-9]+(:[^/\\]+)?|(/|[A-Za-z]:[\\/]).+\.toml)$"

# of a URL's query, what names a patient (rather than a study or series): it would stay in Prefect's database
NAMES_A_PATIENT = r"[?&](Patient(ID|Name)|AccessionNumber|ReferringPhysicianName|StudyDescription)="

AbsolutePath = Annotated[str, Field(pattern=ABSOLUTE_PATH, description="absolute path, or URL")]
Source = Annotated[
    str,
    Field(
        pattern=ABSOLUTE_PATH,
        json_schema_extra={"not": {"pattern": NAMES_A_PATIENT}},
        description="absolute path, or URL of a DICOMweb server or PACS that asks by UID or date",
    ),
]
Target = Annotated[str, Field(pattern=TARGET, description="pacs://AET@HOST:PORT or dicomweb+https://HOST/ROOT")]
Digest = Annotated[str, Field(pattern=DIGEST, description="series id or run key as `ctpipe ls` shows it, or its start")]
Patient = Annotated[str, Field(pattern=PATIENT, description="patient as `ctpipe ls` shows it (p-…), never a PatientID")]
RecipeName = Annotated[str, Field(pattern=RECIPE, description="name of a recipe, or absolute path of its TOML file")]
Steps = Annotated[str, Field(pattern=STEPS, description="largest=liver; fill=liver; min-mm3=lesion:30")]
Classes = Annotated[str, Field(pattern=CLASSES, description="liver=1,livertumor=2, or absolute path of a TOML file")]
