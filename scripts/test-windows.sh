#!/usr/bin/env bash
# The Windows library without a Windows machine: lightning_attn.dll cross-compiled with mingw-w64, CUDA kernels included
# where nvcc is found, and run under Wine: the native tests (ctest), and the NUnit suite, published for win-x64 together
# with .NET, TorchSharp and the libtorch for Windows. What needs a GPU is skipped, as everywhere without one.
#
#   test-windows.sh [arguments of the NUnit runner]
#   test-windows.sh --build       the library alone
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=build/windows
export WINEPREFIX=$PWD/$build/wine WINEDEBUG=-all
# Wine 10 has not the function by which libtorch's OpenMP asks for the processors of a NUMA node.
export KMP_AFFINITY=disabled
# On some processors Wine loses the upper halves of the AVX registers of a thread that .NET has suspended to collect
# garbage: comparisons of equal arrays then find them different. For the code that .NET generates alone.
export DOTNET_EnableAVX=0

# configure PRESET [OPTION...]
configure() {
    if [[ ! -e build/$1/CMakeCache.txt ]] && command -v ninja > /dev/null; then export CMAKE_GENERATOR=Ninja; fi
    cmake --preset "$@"
}

# The kernels are the same on every system and take longest: they come from the build of the Linux library.
library() {
    local fatbins=
    configure release > "$build/release.log" || { cat "$build/release.log"; return 1; }
    if cmake --build --preset release --target help | grep lightning_attn_fatbins > /dev/null; then
        cmake --build --preset release --target lightning_attn_fatbins -j "$(nproc)" || return
        fatbins=$PWD/build/release/cuda
    fi
    configure windows -DLATTN_FATBIN_DIR="$fatbins" && cmake --build --preset windows -j "$(nproc)"
}

native_tests() { ctest --preset windows -j "$(nproc)"; }

managed_tests() {
    # Intermediate files of its own: a self-contained build beside the ordinary one would leave its traces there.
    dotnet publish tests/LightningAttn.TorchSharp.Tests -c Release -r win-x64 --self-contained -p:TorchBackend=cpu \
        -p:DebugType=none --artifacts-path "$build/managed" -o "$build/tests" --nologo -v quiet || return
    "$wine" "$build/tests/LightningAttn.TorchSharp.Tests.exe" --no-ansi --progress off "$@" | tr -d '\r'
}

scripts/prerequisites.sh --windows
mkdir -p "$build"
wine=$(scripts/install-wine.sh --print-program)
readonly wine
library
if [[ ${1:-} == --build ]]; then exit; fi

# The server is started here and stays: the test that started it would not end before it, since it has its output open.
"$wine" wineboot -i > /dev/null 2>&1
"$(dirname "$wine")/wineserver" -p > /dev/null 2>&1 || true # it is running already
trap '"$(dirname "$wine")/wineserver" -k' EXIT

# Both suites run, whatever the other one says, and at the same time: each keeps little more than one processor busy.
status=0
managed_tests "$@" > "$build/managed-tests.log" 2>&1 &
native_tests || status=1
wait $! || status=1
cat "$build/managed-tests.log"
exit $status
