#!/usr/bin/env bash
# Packs the tests and their data, the benchmark, the samples, the .NET runtime and the native library into
# artifacts/gpu/lightning-attn-gpu.tar.gz: all that a Linux machine with a GPU and Python's PyTorch lacks.
# scripts/run-on-gpu.sh runs it there.
# The native library must have been built once (./build.sh gpu-package does both); what is out of date is built again,
# unless --built says that nothing is. Its GPU tests are built where GoogleTest is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly rid=linux-x64
readonly out=artifacts/gpu
readonly app=$out/lightning-attn-gpu
readonly archive=$app.tar.gz
readonly limit_mib=60

[[ ${1:-} == --built || ! -e build/release/CMakeCache.txt ]] || cmake --build --preset release -j "$(nproc)"
[[ -e artifacts/native/$rid/liblightning_attn.so ]] ||
    { echo "error: artifacts/native/$rid/liblightning_attn.so is missing; run ./build.sh gpu-package" >&2; exit 1; }

rm -rf "$app" "$archive"
mkdir -p "$app"
# Intermediate files of their own: a self-contained build beside the ordinary one would leave its traces there. The
# programs go to one folder and share the runtime.
for project in tests/LightningAttn.TorchSharp.Tests benchmarks/LightningAttn.Benchmarks samples/CharLm samples/Serve \
    samples/MiniMax; do
    dotnet publish "$project" -c Release -r "$rid" --self-contained -p:TorchBackend=external -p:DebugType=none \
        --artifacts-path "$out/obj" -o "$app" --nologo -v quiet
done

# The libraries of other systems, where they were built, are of no use there.
find "$app/runtimes" -mindepth 1 -maxdepth 1 ! -name "$rid" -exec rm -rf {} +

# Beside the library, where the tests look for it.
for program in lattn_gpu_tests lattn_compare; do
    if [[ -x artifacts/native/$rid/$program ]]; then
        cp "artifacts/native/$rid/$program" "$app/runtimes/$rid/native/"
    else
        echo "warning: no $program in the package: artifacts/native/$rid/$program was not built, which needs nvcc and," \
            "for the tests, GoogleTest" >&2
    fi
done

# For machines without libgomp1; run-on-gpu.sh uses it only there.
libgomp=$(ldconfig -p | awk '$1 == "libgomp.so.1" { print $NF }' | sed -n '1p')
if [[ -n $libgomp ]]; then
    mkdir -p "$app/fallback"
    cp -L "$libgomp" "$app/fallback/"
fi
cp scripts/run-on-gpu.sh scripts/compare-losses.sh "$app/"

# An application that finds a libtorch of its own would not look for Python's.
if compgen -G "$app/libtorch*" > /dev/null || compgen -G "$app/libc10*" > /dev/null; then
    echo "error: libtorch got into the package" >&2
    exit 1
fi

tar --sort=name --owner=0 --group=0 --numeric-owner -C "$out" -c "$(basename "$app")" | gzip -9 > "$archive"
bytes=$(stat -c %s "$archive")
echo "$archive: $((bytes / 1048576)) MiB ($(du -sm "$app" | cut -f1) MiB unpacked)"
if ((bytes > limit_mib * 1048576)); then
    echo "error: more than $limit_mib MiB" >&2
    exit 1
fi
