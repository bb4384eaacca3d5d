#!/usr/bin/env bash
# Everything that can only be shown on an NVIDIA GPU, by one command:
#
#     deploy/gpu-check.sh [OUT]          results in OUT ($OUT, or gpu-check)
#     deploy/gpu-check.sh --dry-run      says what it would run, and what is missing; needs no GPU
#
# tests     the GPU tests (pytest -m gpu): decoding by NVDEC, kernels as Triton compiles them, engines, encoding
# engines   do the engines of the GPU say what the CPU says, and how fast are they, at every size and batch
# capacity  how many 1080p30 cameras the machine holds, and what gives out first
#
# Prints tables; leaves JSON, JUnit and logs in OUT, and OUT/summary.json. Each part has LIMIT seconds (520): one that
# hangs is ended, counts as failed and costs the others nothing. Exit code 0 where all parts that could be run passed, 1
# where one did not, 2 where there is no GPU; what could not be run is said in one line.
#
# Needs Python 3.11 or newer with torch, onnx, numpy and opencv. What else is missing is taken from a folder of wheels,
# $WHEELS or wheels/ here, which a machine with a network makes for the GPU machine's Python:
#
#     pip download -d wheels --python-version 3.12 --only-binary=:all: \
#       av cuda-bindings hypothesis ml-dtypes msgpack msgspec openvino prometheus-client pytest pytest-timeout pyyaml \
#       pyzmq rich typer
#
# Variables: SKIP ("tests engines capacity": parts to leave out), SECONDS_EACH (2: time of each row of the engines'
# table), PYTHON.
set -uo pipefail

dry=
case ${1:-} in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
  exit 0
  ;;
-n | --dry-run)
  dry=1
  shift
  ;;
-*)
  echo "gpu-check.sh: there is no option $1; see --help." >&2
  exit 2
  ;;
esac

cd "$(dirname "$0")/.." || exit 2
out=${1:-${OUT:-gpu-check}}
wheels=${WHEELS:-wheels}
python=${PYTHON:-python3}
limit=${LIMIT:-520}
skip=" ${SKIP:-} "
rows=()
failed=0

missing() { # modules that cannot be imported
  "$python" - "$@" <<'EOF'
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])
EOF
}

note() { # part, what became of it, seconds
  rows+=("$1|$2|$3")
  [[ $2 == passed || $2 == "left out" || $2 == "not run"* || $2 == "would run"* ]] || failed=1
}

run() { # part, command…
  local part=$1
  shift
  if [[ $skip == *" $part "* ]]; then
    note "$part" "left out" 0
    return
  fi
  if [[ -n $dry ]]; then
    echo "$part (at most $limit s): $*"
    note "$part" "would run" 0
    return
  fi
  echo "== $part"
  local start=$SECONDS log="$out/$part.log"
  # In a group of its own, so that what it started ends with it; the second signal is for those that do not listen.
  timeout --kill-after=15 "$limit" "$@" </dev/null > >(tee "$log") 2>&1
  local code=$?
  if ((code == 0)); then
    note "$part" passed $((SECONDS - start))
  elif ((code == 124 || code == 137)); then
    note "$part" "ended after $limit s" $((SECONDS - start))
  else
    note "$part" "failed (exit code $code)" $((SECONDS - start))
  fi
}

if [[ -z $dry ]]; then
  mkdir -p "$out" || exit 2
  out=$(cd "$out" && pwd)
  if ! timeout 120 "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "There is no NVIDIA GPU that PyTorch can use here (no torch, no driver, or no GPU): nothing was run." >&2
    exit 2
  fi
  "$python" -c 'import torch; print(torch.cuda.get_device_name(0), "torch", torch.__version__, "CUDA", torch.version.cuda)' |
    tee "$out/machine.txt"
  { timeout 30 nvidia-smi || true; } >"$out/nvidia-smi.txt" 2>&1
fi

declare -A wheel_of=([cv2]=opencv-python-headless [yaml]=pyyaml [zmq]=pyzmq [prometheus_client]=prometheus-client
  [pytest_timeout]=pytest-timeout [cuda]=cuda-bindings [ml_dtypes]=ml-dtypes)
wanted=(av cuda cv2 hypothesis ml_dtypes msgpack msgspec numpy onnx openvino prometheus_client pytest pytest_timeout rich
  typer yaml zmq)
if [[ -z $dry && -d $wheels ]]; then
  for name in $(missing "${wanted[@]}"); do
    # One by one: what one wheel lacks must not take the others with it. The system's own Python is the machine's only
    # one, and nobody else's.
    PIP_BREAK_SYSTEM_PACKAGES=1 timeout 180 "$python" -m pip install -q --no-index --find-links "$wheels" \
      "${wheel_of[$name]:-$name}"
  done
fi
lacking=$(missing "${wanted[@]}")
[[ -z $lacking ]] || echo "Missing, and no wheel in $wheels: $lacking. What needs them is not run."
command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
  echo "There is no C compiler here, which Triton and Inductor need: PyTorch's own operations stand in for the kernels."
needs() { # part, modules…
  local part=$1 name
  shift
  for name in "$@"; do
    if [[ " $lacking " == *" $name "* ]]; then
      note "$part" "not run: $name is missing" 0
      return 1
    fi
  done
}

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if needs tests pytest pytest_timeout msgspec hypothesis av onnx cv2 yaml; then
  # Only the files that have such tests: the others want libraries that nothing here needs.
  mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.gpu' tests)
  # A compiler's first run and a hang look alike; a test that takes two minutes hangs.
  run tests "$python" -m pytest -m gpu -q -p no:cacheprovider -o timeout=120 --junitxml "$out/tests.xml" "${files[@]}"
fi
if needs engines msgspec onnx cv2 av ml_dtypes; then
  run engines "$python" tests/benchmarks/gpu_engines.py --seconds "${SECONDS_EACH:-2}" \
    --limit $((limit * 3 / 4)) --json "$out/engines.json"
fi
if needs capacity av openvino zmq msgpack msgspec prometheus_client yaml; then
  run capacity "$python" tests/benchmarks/capacity.py --device cuda --json "$out/capacity.json"
fi

echo
printf '%-10s %-28s %s\n' part result seconds
for row in "${rows[@]}"; do
  IFS='|' read -r part result seconds <<<"$row"
  printf '%-10s %-28s %s\n' "$part" "$result" "$seconds"
done
[[ -z $dry ]] || exit 0
printf '%s\n' "${rows[@]}" | "$python" -c '
import json, pathlib, sys
rows = [line.rstrip("\n").split("|") for line in sys.stdin]
parts = {part: {"result": result, "seconds": int(seconds)} for part, result, seconds in rows}
folder = pathlib.Path(sys.argv[1])
(folder / "summary.json").write_text(json.dumps({"machine": (folder / "machine.txt").read_text().strip(), "parts": parts}, indent=2) + "\n")
' "$out"
echo "Figures are in $out."
exit "$failed"
