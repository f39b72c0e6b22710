#!/bin/sh
# An environment with nnunetv2 2.8.1 beside ctpipe's own: sh benchmarks/nnunet-venv.sh [FOLDER, default build/nnunet-venv]
# Torch, SciPy and what else both need are taken from the environment of $PYTHON (default .venv/bin/python) by a .pth
# file. Nothing may pull torchvision, which nnunetv2 and dynamic-network-architectures declare and do not need to
# predict or train: so every package is named, and none brings its own.
set -e
PYTHON=${PYTHON:-.venv/bin/python}
FOLDER=${1:-build/nnunet-venv}
"$PYTHON" -m venv "$FOLDER"
SHARED=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
OWN=$("$FOLDER/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$SHARED" >"$OWN/shared.pth"
"$FOLDER/bin/python" -m pip install --quiet --no-deps \
    nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 acvl-utils==0.2.6 batchgenerators==0.25.5 \
    batchgeneratorsv2==0.3.6 fft-conv-pytorch==1.2.0 einops==0.8.2 timm==1.0.22 blosc2==4.14.1 ndindex==1.10.1 \
    numexpr==2.14.2 scikit-learn==1.9.1 joblib==1.6.0 threadpoolctl==3.8.0 narwhals==2.29.0 seaborn==0.13.2 \
    yacs==0.1.8 future==1.0.0 unittest2==1.1.0 argparse==1.4.0 scikit-image==0.26.0
"$FOLDER/bin/python" -c 'from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor' 2>&1 | grep -v 'not defined' || true
echo "$FOLDER/bin/python runs nnunetv2"
