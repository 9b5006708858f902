#!/bin/sh
# The steps of both container recipes, in a new root of Debian: the pinned packages, and the package of the clone that is the first
# argument. They go to /opt/rampflow, with the command in /usr/local/bin.
set -eu
clone=$1
export DEBIAN_FRONTEND=noninteractive
apt-get update
# git: the version is that of the commit.
apt-get install --yes --no-install-recommends ca-certificates git python3 python3-venv
rm -rf /var/lib/apt/lists/*
python3 -m venv /opt/rampflow
pip="/opt/rampflow/bin/python -m pip --no-cache-dir --disable-pip-version-check"
$pip install --quiet -r "$clone/envs/rampflow.txt"
git config --global --add safe.directory "$clone"
$pip install --quiet --no-deps "$clone"
ln -s /opt/rampflow/bin/rampflow /usr/local/bin/rampflow
