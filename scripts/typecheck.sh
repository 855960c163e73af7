#!/usr/bin/env bash
# Runs mypy over the packages. They lie in mapped folders, which mypy cannot follow, so it is shown
# a tree of links laid out like the import names; the paths in its output are put back.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tree=build/typecheck
rm -rf "$tree"
mkdir -p "$tree/soft_sglang"
ln -s "$PWD"/soft_sglang/* "$PWD"/{kernels,patches,server} "$tree/soft_sglang/"

python=$PWD/${BIN:-.venv/bin}/python config=$PWD/pyproject.toml cache=$PWD/.mypy_cache
cd "$tree"
"$python" -m mypy --config-file "$config" --cache-dir "$cache" "$@" -p soft_sglang |
    sed -E 's#^soft_sglang/(kernels|patches|server)/#\1/#'
