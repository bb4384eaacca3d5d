#!/usr/bin/env bash
# Everything that can only be shown on an NVIDIA GPU, by one command:
#
#     deploy/gpu-check.sh [OUT]
#
# 1. the GPU tests (pytest -m gpu), 2. do the engines of the GPU say what the CPU says, and how fast are they,
# 3. how many 1080p30 cameras the machine holds. Prints tables; leaves JSON, JUnit and logs in OUT ($OUT, or gpu-check).
# Exit code 0 where all that could be run passed; what could not be run is said in one line.
#
# Needs Python 3.11 or newer with torch, onnx, numpy and opencv. What else is missing is taken from a folder of wheels,
# $WHEELS or wheels/ here, which a machine with a network makes for the GPU machine's Python:
#
#     pip download -d wheels --python-version 3.12 --only-binary=:all: \
#       av cuda-bindings hypothesis msgpack msgspec openvino prometheus-client pytest pytest-timeout pyyaml pyzmq rich typer
#
# SECONDS_EACH (2): time of each row of the table. SKIP ("tests engines capacity"): parts to leave out.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-gpu-check}}
wheels=${WHEELS:-wheels}
python=${PYTHON:-python3}
skip=" ${SKIP:-} "
mkdir -p "$out"
out=$(cd "$out" && pwd)
failed=()

missing() { # modules that cannot be imported
  "$python" - "$@" <<'EOF'
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])
EOF
}

run() { # part, log, command…
  local part=$1 log="$out/$2"
  shift 2
  if [[ $skip == *" $part "* ]]; then
    echo "$part: left out, as asked."
    return
  fi
  echo "== $part"
  "$@" 2>&1 | tee "$log"
  local code=${PIPESTATUS[0]}
  ((code == 0)) || failed+=("$part (exit code $code, $log)")
}

if ! "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "There is no NVIDIA GPU that PyTorch can use here (no torch, no driver, or no GPU): nothing was run." >&2
  exit 2
fi
"$python" -c 'import torch; print(torch.cuda.get_device_name(0), "torch", torch.__version__, "CUDA", torch.version.cuda)'
{ nvidia-smi || true; } >"$out/nvidia-smi.txt" 2>&1

declare -A wheel_of=([cv2]=opencv-python-headless [yaml]=pyyaml [zmq]=pyzmq [prometheus_client]=prometheus-client
  [pytest_timeout]=pytest-timeout [cuda]=cuda-bindings)
wanted=(av cuda cv2 hypothesis msgpack msgspec numpy onnx openvino prometheus_client pytest pytest_timeout rich typer yaml zmq)
for name in $(missing "${wanted[@]}"); do
  # One by one: what one wheel lacks must not take the others with it.
  [[ -d $wheels ]] && "$python" -m pip install -q --no-index --find-links "$wheels" "${wheel_of[$name]:-$name}"
done
lacking=$(missing "${wanted[@]}")
[[ -z $lacking ]] || echo "Missing, and no wheel in $wheels: $lacking. What needs them is left out."
has() { [[ " $lacking " != *" $1 "* ]]; }

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if has pytest && has pytest_timeout && has msgspec; then
  # Only the files that have such tests: the others want libraries that nothing here needs.
  mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.gpu' tests)
  run tests tests.log "$python" -m pytest -m gpu -q -p no:cacheprovider --junitxml "$out/tests.xml" "${files[@]}"
else
  echo "tests: not run, pytest, pytest-timeout or msgspec is missing."
fi
if has msgspec && has onnx && has cv2 && has av; then
  run engines engines.log "$python" tests/benchmarks/gpu_engines.py --seconds "${SECONDS_EACH:-2}" \
    --json "$out/engines.json"
else
  echo "engines: not run, msgspec, onnx, opencv or av is missing."
fi
if [[ ! -f tests/benchmarks/capacity.py ]]; then
  echo "capacity: not run, this checkout has no tests/benchmarks/capacity.py."
elif has av && has openvino && has zmq && has msgpack && has prometheus_client; then
  run capacity capacity.log "$python" tests/benchmarks/capacity.py --device cuda --json "$out/capacity.json"
else
  echo "capacity: not run, av, openvino, pyzmq, msgpack or prometheus-client is missing."
fi

if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
echo "All that was run passed; figures are in $out."
