#!/usr/bin/env bash
# The experiment of arXiv 2505.15778 with one model: the paper's datasets and settings, the same
# number of samples for every arm, then the report. The same command goes on where it was stopped.
#
#     scripts/reproduce.sh MODEL_PATH OUT [FLAG...]
#
# MODEL_PATH is a folder or a name on the hub. FLAGs go to `python -m soft_sglang.eval run` after the
# paper's settings and win over them: `--limit 20 --samples 2 --max-new-tokens 512` is a short trial.
# Reads: PYTHON (default: the one of .venv, if there is one); DATA, a folder with math500.json,
# aime2024.json, gsm8k.json and gpqa_diamond.json, or some of them, to be taken instead of the hub's.
set -euo pipefail

(($# >= 2)) || {
    echo "usage: scripts/reproduce.sh MODEL_PATH OUT [FLAG...]" >&2
    exit 2
}
model=$1 out=$2
shift 2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python
    [[ ! -x $root/.venv/bin/python ]] || PYTHON=$root/.venv/bin/python
fi
export PYTHONSAFEPATH=1 # the folder kernels/ must not hide a package of the same name

datasets=(math500 aime2024 gsm8k gpqa_diamond)
data=()
if [[ -n ${DATA:-} ]]; then
    for name in "${datasets[@]}"; do
        [[ ! -f $DATA/$name.json ]] || data+=(--data "$DATA/$name.json")
    done
    ((${#data[@]})) || {
        echo "DATA=$DATA holds none of ${datasets[*]/%/.json}" >&2
        exit 2
    }
else
    data=(--datasets "$(IFS=,; echo "${datasets[*]}")")
fi

# one model over all GPUs; --engine-arg tp_size=N among the FLAGs decides otherwise
engine=()
gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')
[[ $gpus == 0 ]] || engine=(--engine-arg "tp_size=$gpus")

"$PYTHON" -m soft_sglang.eval run --model-path "$model" --out "$out" \
    "${data[@]}" --samples 16 "${engine[@]}" \
    --arms cot,cot_stock,cot_greedy,cold_stop_only,soft,soft_no_cold_stop \
    --temperature 0.6 --top-p 0.95 --top-k 30 --min-p 0.001 --max-new-tokens 32768 --max-topk 10 \
    --early-stopping-entropy-threshold 0.01 --early-stopping-length-threshold 256 \
    --concurrency 128 "$@"
"$PYTHON" -m soft_sglang.eval report "$out" --out "$out/report"
echo "The report is $out/report/report.md" >&2
