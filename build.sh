#!/usr/bin/env bash
# ./build.sh help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat << 'EOT'
usage: ./build.sh <command> [-- arguments]

  run          set up, build, and train the sample language model (arguments go to it: ./build.sh run -- --help)
  test         set up, build, and run the native and the managed tests (arguments go to dotnet test)
  build        set up and build the native library and the solution
  pack         set up, build, and make the NuGet packages (artifacts/packages)
  gpu-package  pack tests, benchmark and samples for a GPU machine that has Python's PyTorch and no .NET
  clean        delete what was built

CUDA kernels are built when nvcc is found; scripts/install-cuda-compiler.sh installs one on Debian.
TorchBackend=cpu|cuda-linux|cuda-windows|external in the environment chooses the libtorch package (default cpu).
EOT
}

native() {
    if [[ ! -e build/release/CMakeCache.txt ]] && command -v ninja > /dev/null; then export CMAKE_GENERATOR=Ninja; fi
    cmake --preset release
    cmake --build --preset release -j "$(nproc)"
}

# Both suites run, whatever the other one says, and at the same time: most of the managed one keeps one processor busy.
# Its output follows that of ctest.
tests() {
    local status=0 log=build/managed-test.log
    export OMP_WAIT_POLICY=PASSIVE # threads that spin while they wait keep the other suite from the processors
    trap 'trap - TERM; kill 0' INT TERM # what runs in the background does not hear of Ctrl-C
    target managed-test > "$log" 2>&1 &
    ctest --preset release -j "$(nproc)" || status=1
    wait $! || status=1
    cat "$log"
    return $status
}

target() { cmake --build --preset release --target "$1"; }

command=${1:-help}
[[ $# == 0 ]] || shift
[[ ${1:-} != -- ]] || shift
export LATTN_ARGS
LATTN_ARGS=$(IFS=$'\x1f'; printf '%s' "$*")
export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1

case $command in
    run) scripts/prerequisites.sh && native && target run-sample ;;
    test) scripts/prerequisites.sh --tests && native && tests ;;
    build) scripts/prerequisites.sh && native && target managed ;;
    pack) scripts/prerequisites.sh && native && target pack ;;
    gpu-package) scripts/prerequisites.sh && native && target gpu-package ;;
    clean) rm -rf build artifacts ;;
    help | --help | -h) usage ;;
    *) usage >&2; exit 2 ;;
esac
