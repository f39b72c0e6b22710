"""Prefect flows: parameters in, one call of `ctpipe.pipeline` per stage, artifacts and a state out."""
