#!/usr/bin/env bash
# Everything that can only be shown on an NVIDIA GPU, by one command:
#
#     deploy/gpu-check.sh [OUT]          results in OUT ($OUT, or gpu-check)
#     deploy/gpu-check.sh --dry-run      says what it would run, and what is missing; needs no GPU
#     deploy/gpu-check.sh --rehearse [OUT]   starts every part without a GPU: each is to fail for want of that alone
#     deploy/gpu-check.sh --pack         makes wheels/packages.tar.xz, of what travels besides the checkout
#     deploy/gpu-check.sh --light        takes out of this checkout what no part needs (int8 files, PSPNet, pictures), so that
#                                        it travels with the packages in 64 MiB; --whole puts it back
#     deploy/gpu-check.sh --wheels       prints the packages that it needs besides ONNX, NumPy, OpenCV and PyTorch, which
#                                        brings CUDA's bindings along
#
# tests     the GPU tests (pytest -m gpu): decoding by NVDEC, kernels as Triton compiles them, engines, encoding
# engines   do the engines of the GPU say what the CPU says, and how fast are they, at every size and batch
# capacity  how many 1080p30 cameras the machine holds, and what gives out first
#
# Prints tables; leaves JSON, JUnit and logs in OUT, and OUT/summary.json. Each part ends by its own clock, see `limits`
# below (LIMIT=seconds sets all): one that hangs is ended, counts as failed and costs the others nothing, and what it had
# found lies in OUT. Exit code 0 where all parts that could be run passed, 1 where one did not, 2 where there is no GPU;
# what could not be run is said in one line. A rehearsal ends with 2, or with 1 where anything else is lacking or broken: a
# package, an import, a module that this Python does not have.
#
# Needs Python 3.11 or newer with torch, onnx, numpy and opencv. What else is missing is taken from $WHEELS or wheels/
# here, and put into OUT/packages, for the machine's environment may be read only: from packages.tar.xz, or from wheels.
# A machine with a network makes that archive for the GPU machine's Python (3.12, or $FOR):
#
#     deploy/gpu-check.sh --pack av msgspec pyzmq      without names all that --wheels prints
#
# A test that skips because a part could not be opened counts as failed, but for an encoder on a GPU that has none.
#
# Variables: SKIP ("tests engines capacity": parts to leave out), SECONDS_EACH (2: time of each row of the engines'
# table), PYTHON.
set -uo pipefail

# Modules that the check imports, with all that they bring along: one that is missing ends the collection of tests.
wanted=(annotated_doc av click cuda cv2 google hypothesis iniconfig markdown_it mdurl ml_dtypes msgpack msgspec numpy onnx
  packaging pluggy prometheus_client pygments pytest pytest_timeout rich shellingham sortedcontainers typer
  typing_extensions yaml zmq)
declare -A wheel_of=([annotated_doc]=annotated-doc [cuda]=cuda-bindings [cv2]=opencv-python-headless [google]=protobuf
  [markdown_it]=markdown-it-py [ml_dtypes]=ml-dtypes [prometheus_client]=prometheus-client
  [pytest_timeout]=pytest-timeout [typing_extensions]=typing-extensions [yaml]=pyyaml [zmq]=pyzmq)

dry=
rehearsal=
case ${1:-} in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
  exit 0
  ;;
--wheels)
  for name in "${wanted[@]}"; do
    [[ " cuda cv2 google numpy onnx typing_extensions " == *" $name "* ]] || echo "${wheel_of[$name]:-$name}"
  done
  exit 0
  ;;
--pack)
  cd "$(dirname "$0")/.." || exit 2
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  names=("${@:2}")
  ((${#names[@]})) || mapfile -t names < <(deploy/gpu-check.sh --wheels)
  # Packed anew and harder than a wheel is: PyAV's libraries are 33 MB as a wheel.
  "${PYTHON:-python3}" -m pip install -q --no-deps --only-binary=:all: --python-version "${FOR:-3.12}" \
    --target "$folder" "${names[@]}" || exit 1
  mkdir -p "${WHEELS:-wheels}"
  tar -C "$folder" --exclude=__pycache__ -cJf "${WHEELS:-wheels}/packages.tar.xz" . || exit 1
  du -h "${WHEELS:-wheels}/packages.tar.xz"
  exit 0
  ;;
--light)
  cd "$(dirname "$0")/.." || exit 2
  # Git's own way to have part of a checkout: what is left out is neither deleted nor changed for it.
  exec git sparse-checkout set --no-cone '/*' '!*.int8.onnx' '!cityscapes-pspnet.onnx' '!*.jpg' '!*.png'
  ;;
--whole)
  cd "$(dirname "$0")/.." || exit 2
  exec git sparse-checkout disable
  ;;
-n | --dry-run)
  dry=1
  shift
  ;;
--rehearse)
  rehearsal=1
  export CUDA_VISIBLE_DEVICES=  # on a machine with a GPU, too
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
declare -A limits=([tests]=150 [engines]=180 [capacity]=330)
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
  local part=$1 limit=${LIMIT:-${limits[$1]}}
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
  if [[ -n $rehearsal ]]; then
    echo "no GPU" >"$out/machine.txt"
  elif ! timeout 120 "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "FAILED: no GPU: there is no NVIDIA GPU that PyTorch can use here (no torch, no driver, or no GPU); nothing was run." >&2
    echo '{"machine": null, "parts": {}, "failed": "no GPU"}' >"$out/summary.json"
    exit 2
  else
    "$python" -c 'import torch; print(torch.cuda.get_device_name(0), "torch", torch.__version__, "CUDA", torch.version.cuda)' |
      tee "$out/machine.txt"
    { timeout 30 nvidia-smi || true; } >"$out/nvidia-smi.txt" 2>&1
  fi
fi

packages=$out/packages
if [[ -n $dry ]]; then
  packages=$(mktemp -d)
  trap 'rm -rf "$packages"' EXIT
fi
export PYTHONPATH="$PWD:$packages${PYTHONPATH:+:$PYTHONPATH}"
if [[ -f $wheels/packages.tar.xz ]]; then
  mkdir -p "$packages" && tar -C "$packages" -xJf "$wheels/packages.tar.xz"
fi
if [[ -z $dry && -d $wheels ]]; then
  for name in $(missing "${wanted[@]}"); do
    # One by one: what one wheel lacks must not take the others with it. Nothing that a wheel depends on: it would shadow
    # the machine's own PyTorch and NumPy.
    timeout 180 "$python" -m pip install -q --no-index --no-deps --find-links "$wheels" --target "$out/packages" \
      "${wheel_of[$name]:-$name}"
  done
fi
if [[ -n $dry ]]; then
  bytes() { # of the files that are named on standard input, separated by 0
    du -cb --files0-from=- 2>/dev/null | awk 'END { print $1 + 0 }'
  }
  echo "What travels, MiB (64 at most):"
  total=0
  for folder in $(git ls-files | sed 's,/.*,/,' | sort -u); do
    size=$(git ls-files -z -- "$folder" | bytes)
    ((total += size))
    ((size < 100000)) || printf '%8.1f %s\n' "$(awk "BEGIN { print $size / 1048576 }")" "$folder"
  done
  size=$(find "$wheels" -type f -print0 2>/dev/null | bytes)
  ((total += size))
  printf '%8.1f %s\n' "$(awk "BEGIN { print $size / 1048576 }")" "$wheels/" "$(awk "BEGIN { print $total / 1048576 }")" together
  ((total <= 64 * 1048576)) || { echo "Too much: see --light, or leave something out of $wheels." && failed=1; }
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

if needs tests "${wanted[@]}"; then
  # Only the files that have such tests: the others want libraries that nothing here needs.
  mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.gpu' tests)
  # A compiler's first run and a hang look alike; a test that takes two minutes hangs.
  # Not the project's own options: they run tests side by side, by a plug-in that is not here.
  run tests "$python" -m pytest -m gpu -q -p no:cacheprovider -o timeout=120 -o addopts=--strict-markers \
    --junitxml "$out/tests.xml" "${files[@]}"
  if [[ -z $dry && -f $out/tests.xml ]] &&
    ! "$python" deploy/gpu_verdict.py "$out/tests.xml" "$(cat "$out/machine.txt")" | tee "$out/verdict.txt"; then
    rows=("${rows[@]/#tests|passed/tests|failed: not every test ran}")
    failed=1
  fi
fi
if needs engines msgspec onnx cv2 av ml_dtypes yaml; then
  run engines "$python" tests/benchmarks/gpu_engines.py --seconds "${SECONDS_EACH:-2}" \
    --limit $((${LIMIT:-${limits[engines]}} * 3 / 4)) --json "$out/engines.json"
fi
if needs capacity av cv2 zmq msgpack msgspec onnx prometheus_client yaml; then
  run capacity "$python" tests/benchmarks/capacity.py --device cuda --limit $((${LIMIT:-${limits[capacity]}} * 9 / 10)) \
    --json "$out/capacity.json"
fi

echo
printf '%-10s %-28s %s\n' part result seconds
for row in "${rows[@]}"; do
  IFS='|' read -r part result seconds <<<"$row"
  printf '%-10s %-28s %s\n' "$part" "$result" "$seconds"
done
[[ -z $dry ]] || exit "$failed"
printf '%s\n' "${rows[@]}" | "$python" -c '
import json, pathlib, sys
rows = [line.rstrip("\n").split("|") for line in sys.stdin]
parts = {part: {"result": result, "seconds": int(seconds)} for part, result, seconds in rows}
folder = pathlib.Path(sys.argv[1])
(folder / "summary.json").write_text(json.dumps({"machine": (folder / "machine.txt").read_text().strip(), "parts": parts}, indent=2) + "\n")
' "$out"
echo "Figures are in $out."
[[ -n $rehearsal ]] || exit "$failed"
broken=()
for row in "${rows[@]}"; do
  IFS='|' read -r part result _ <<<"$row"
  [[ $result == failed* || $result == "left out" ]] || broken+=("$part: $result without a GPU")
  ! grep -q '^Traceback' "$out/$part.log" 2>/dev/null || broken+=("$part: an error that is none of ours, see $part.log")
done
if [[ " ${SKIP:-} " != *" tests "* ]] && { [[ ! -f $out/tests.xml ]] || grep -q '^failed: ' "$out/verdict.txt"; }; then
  broken+=("tests: some cannot be collected, or fail and do not skip, see tests.log")
fi
if ((${#broken[@]})); then
  printf 'BROKEN: %s\n' "${broken[@]}" >&2
  exit 1
fi
echo "FAILED: no GPU: every part was started, and failed for want of one alone." >&2
exit 2
