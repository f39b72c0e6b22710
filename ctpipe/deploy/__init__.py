"""The flows on a Prefect server: make the deployments, start a run by the flow's bare name, say how it stands."""

from ctpipe.deploy.deployments import DEPLOYMENTS, Deployment, declared, up
from ctpipe.deploy.lines import lines
from ctpipe.deploy.runs import run
from ctpipe.deploy.status import status

__all__ = ["DEPLOYMENTS", "Deployment", "declared", "lines", "run", "status", "up"]
