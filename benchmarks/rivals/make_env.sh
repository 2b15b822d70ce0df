#!/bin/sh
# An environment of its own for one rival: make_env.sh NAME FOLDER, NAME being deeperhistreg, valis, hs2p or vips.
set -eu
name=$1
folder=$2
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --upgrade pip
"$folder/bin/pip" install ${HEPIPE_PIP_ARGS:-} -r "$here/$name.txt"
"$folder/bin/python" -c 'import sys; print(sys.executable)'
