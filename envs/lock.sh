#!/usr/bin/env bash
# Pin the packages that the .in files need, in their newest versions: a .txt file of each for pip; rampflow.yaml for conda, pixi.toml
# for pixi, and pylock.toml for uv. Write the tags of these versions, and those of the newest data models, to
# scripts/rampflow/files/tags.py, and the schemas of the newest ones beside it.
set -euo pipefail
cd "$(dirname "$0")"
python=${1:-python3}
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$python" -m venv "$fresh/venv"
pip="$fresh/venv/bin/python -m pip --disable-pip-version-check"
$pip install --quiet -r rampflow.in
$pip freeze > "$fresh/rampflow"
"$fresh/venv/bin/python" write_tags.py describe > "$fresh/pinned.json"
"$python" -m venv "$fresh/next"
sed -E 's/==[0-9.]+//' rampflow.in > "$fresh/next.in"
"$fresh/next/bin/python" -m pip --disable-pip-version-check install --quiet -r "$fresh/next.in"
"$fresh/next/bin/python" write_tags.py describe > "$fresh/newest.json"
$pip install --quiet -r watch.in
$pip freeze > "$fresh/watch"
$pip install --quiet -r fetch.in
$pip freeze > "$fresh/fetch"
$pip install --quiet -r view.in
$pip freeze > "$fresh/view"
$pip install --quiet -r dev.in
$pip freeze > "$fresh/dev"
$pip install --quiet -r docs.in
$pip freeze > "$fresh/docs"
$pip install --quiet -r cluster.in
$pip freeze > "$fresh/cluster"
{
  echo "# Pins of rampflow.in and of all its dependencies: written by \`make lock\`."
  cat "$fresh/rampflow"
} > rampflow.txt
{
  echo "# Pins of watch.in, on top of rampflow.txt: written by \`make lock\`."
  comm -13 <(sort "$fresh/rampflow") <(sort "$fresh/watch")
} > watch.txt
{
  echo "# Pins of fetch.in, on top of rampflow.txt and watch.txt: written by \`make lock\`."
  comm -13 <(sort "$fresh/watch") <(sort "$fresh/fetch")
} > fetch.txt
{
  echo "# Pins of view.in, on top of rampflow.txt: written by \`make lock\`."
  comm -13 <(sort "$fresh/fetch") <(sort "$fresh/view")
} > view.txt
{
  echo "# Pins of dev.in, on top of rampflow.txt: written by \`make lock\`."
  comm -13 <(sort "$fresh/rampflow") <(sort "$fresh/dev")
} > dev.txt
{
  echo "# Pins of docs.in, on top of rampflow.txt and dev.txt: written by \`make lock\`."
  comm -13 <(sort "$fresh/dev") <(sort "$fresh/docs")
} > docs.txt
{
  echo "# Pins of cluster.in, on top of rampflow.txt, dev.txt and docs.txt: written by \`make lock\`."
  comm -13 <(sort "$fresh/docs") <(sort "$fresh/cluster")
} > cluster.txt
{
  echo "# The environment of rampflow.txt for conda: written by \`make lock\`."
  echo "name: rampflow"
  echo "channels: [conda-forge, nodefaults]"
  echo "dependencies:"
  echo "  - python =3.12"
  echo "  - pip"
  echo "  - pip:"
  sed 's/^/      - /' "$fresh/rampflow"
} > rampflow.yaml
{
  echo "# The environment of rampflow.txt for pixi: written by \`make lock\`."
  printf '[workspace]\nname = "rampflow"\nchannels = ["conda-forge"]\nplatforms = ["linux-64"]\n\n'
  printf '[dependencies]\npython = "3.12.*"\n\n[pypi-dependencies]\n'
  sed -E 's/^(.*)==(.*)$/"\1" = "==\2"/' "$fresh/rampflow"
} > pixi.toml
# The files of these versions for all platforms, with their hashes. In an environment of its own: uv is no dependency.
"$python" -m venv "$fresh/uv"
"$fresh/uv/bin/python" -m pip --disable-pip-version-check install --quiet uv
"$fresh/uv/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-deps --no-header --no-annotate \
  --format pylock.toml --output-file pylock.toml rampflow.txt
"$fresh/next/bin/python" write_tags.py write ../scripts/rampflow/files "$fresh/pinned.json" "$fresh/newest.json"
