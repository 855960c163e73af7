#!/usr/bin/env bash
# Creates .venv with everything that the CPU server and the tests need. Does nothing when nothing
# changed since it last ran to the end. Reads: PYTHON (interpreter to use), TORCH_INDEX_URL, and
# SGLANG: an older supported version, which gets an environment of its own, .venv-VERSION.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sglang=${SGLANG:-} overlay=
if [[ -n $sglang ]] && ! grep -qx "sglang==$sglang" requirements/cpu.txt; then
    overlay=requirements/sglang-$sglang.txt
fi
venv=.venv${overlay:+-$sglang}
stamp=$venv/setup.stamp
py=$venv/bin/python
torch_index=${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

find_python() {
    local name names=(python3.11 python3.12 python3.13 python3 python)
    [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

fingerprint() {
    {
        pwd
        "$py" -VV
        cat requirements/*.txt pyproject.toml setup.py scripts/setup.sh
    } | cksum
}

pip_install() {
    "$py" -m pip install -qq --disable-pip-version-check --no-input "$@"
}

[[ -z $overlay || -f $overlay ]] ||
    die "no environment for SGLang $sglang; there are $(
        sed -n 's/^sglang==//p' requirements/*.txt | sort -V | paste -sd ' '
    )"

if "$py" -m pip --version >/dev/null 2>&1; then
    if [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; then
        exit 0
    fi
    rm -f "$stamp"
else
    python=$(find_python) ||
        die "needs Python 3.11 to 3.13 with venv (Debian: python3-venv); point PYTHON at one"
    say "creating $venv with $("$python" -V)"
    "$python" -m venv --clear "$venv"
fi

no_install="the lines above say what pip missed; check the network, then run this again"

say "installing pip and setuptools"
pip_install -r requirements/build.txt || die "$no_install"

say "installing PyTorch (CPU build)"
if [[ -n ${TORCH_INDEX_URL:-} ]] ||
    ! pip_install --no-deps -r requirements/torch.txt 2>/dev/null; then
    say "looking for it on $torch_index"
    pip_install --no-deps --index-url "$torch_index" -r requirements/torch.txt ||
        die "no CPU build of PyTorch found; point TORCH_INDEX_URL at an index that has it"
fi

say "installing SGLang and what it needs on a CPU"
pip_install --no-deps -r requirements/cpu.txt || die "$no_install"
[[ -z $overlay ]] || pip_install --no-deps -r "$overlay" || die "$no_install"

say "installing the tools"
pip_install --no-deps -r requirements/dev.txt || die "$no_install"

say "installing soft-sglang, editable"
PYTHONWARNINGS=ignore pip_install --no-deps --no-build-isolation -e . || die "the project did not install"

fingerprint >"$stamp"
say "done"
