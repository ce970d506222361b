#!/usr/bin/env bash
# Runs the packed tests, benchmark or samples on a machine with an NVIDIA GPU and Python's PyTorch; no .NET is needed.
#
#   run-on-gpu.sh [test] [arguments of the test runner]     the GPU tests, or those of them that --filter EXPRESSION names;
#                                                           all tests with: test --all
#   run-on-gpu.sh native [arguments of GoogleTest]          the native GPU tests; they need no PyTorch
#   run-on-gpu.sh benchmark [arguments of the benchmark]
#   run-on-gpu.sh compare NAME=LIBRARY... CASE...           times forward calls of the package's library and of other
#                                                           builds in turn (native/tools/lattn_compare.cpp); no PyTorch
#   run-on-gpu.sh sample --data PATH [arguments of CharLm]  trains a small language model on a file or folder
#   run-on-gpu.sh serve [arguments of Serve]                many generation streams at a time; --verify compares each of
#                                                           them with the same prompt served alone
#   run-on-gpu.sh minimax [arguments of MiniMax]            a MiniMax decoder; without arguments it is compared with what
#                                                           transformers computed from two tiny checkpoints
#   run-on-gpu.sh sanitize [native | test]                  under compute-sanitizer: native tests that reach every kernel
#                                                           (memcheck, racecheck, initcheck; no PyTorch) and a subset of
#                                                           the GPU tests (memcheck); or one of the two
#
# The package is the folder this script lies in, or lightning-attn-gpu.tar.gz: in LATTN_GPU_PACKAGE, in the current
# folder, beside this script, or in the repository's artifacts/gpu. LATTN_TORCH_LIB names the folder torch/lib of
# PyTorch; without it python3 is asked.
set -euo pipefail

readonly tests=LightningAttn.TorchSharp.Tests
readonly benchmark=LightningAttn.Benchmarks
readonly sample=CharLm
readonly serve=Serve
readonly minimax=MiniMax
readonly package=lightning-attn-gpu

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# find_app: the folder of the programs, unpacked beside the archive when it is newer than what lies there.
find_app() {
    local here archive folder
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    if [[ -x $here/$tests ]]; then
        printf '%s' "$here"
        return
    fi
    for archive in "${LATTN_GPU_PACKAGE:-}" "$PWD/$package.tar.gz" "$here/$package.tar.gz" \
        "$here/../artifacts/gpu/$package.tar.gz"; do
        [[ -f $archive ]] && break
    done
    [[ -f $archive ]] || die "$package.tar.gz was not found; make it with ./build.sh gpu-package on a machine with the
    .NET SDK, copy it here, or name it in LATTN_GPU_PACKAGE"
    folder=$(cd "$(dirname "$archive")" && pwd)
    if [[ ! -x $folder/$package/$tests || $archive -nt $folder/$package/.unpacked ]]; then
        rm -rf "${folder:?}/$package"
        tar -xzf "$archive" -C "$folder"
        touch "$folder/$package/.unpacked"
    fi
    printf '%s' "$folder/$package"
}

find_torch_lib() {
    local folder=${LATTN_TORCH_LIB:-}
    if [[ -z $folder ]]; then
        folder=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))') ||
            die "python3 has no torch; install PyTorch or name its folder torch/lib in LATTN_TORCH_LIB"
    fi
    [[ -e $folder/libtorch_cpu.so ]] || die "$folder has no libtorch_cpu.so"
    printf '%s' "$folder"
}

app=$(find_app)
readonly libraries=$app/runtimes/linux-x64/native
readonly native=$libraries/lattn_gpu_tests
readonly compare=$libraries/lattn_compare
# ldconfig lies in a folder that a user's PATH often leaves out.
if ! PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2> /dev/null | grep -F 'libgomp.so.1 ' > /dev/null; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$app/fallback
fi

need_native() {
    [[ -x $native ]] || die "the package has no native tests; make it again where GoogleTest is installed"
}

use_torch() {
    # Not `export x=$(...)`: that would hide a failure of the right side.
    LATTN_TORCH_LIB=$(find_torch_lib) || exit 1
    export LATTN_TORCH_LIB
    export LD_LIBRARY_PATH=$LATTN_TORCH_LIB${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

# sanitized TOOL PROGRAM ARGUMENT...: looks at our kernels alone.
sanitized() {
    local tool=$1 sanitizer
    shift
    sanitizer=$(command -v compute-sanitizer || printf '%s' "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
    [[ -x $sanitizer ]] || die "compute-sanitizer of the CUDA toolkit was found neither in PATH nor as $sanitizer"
    printf '\n== %s: %s\n' "$tool" "$(basename "$1")"
    "$sanitizer" --tool "$tool" --kernel-name kns=lattn_ --error-exitcode 9 "$@"
}

# Every kernel at small sizes. What initcheck looks for, a filled workspace would hide.
sanitize_native() {
    local tool status=0
    need_native
    for tool in memcheck racecheck initcheck; do
        LATTN_TEST_FILL_WORKSPACE=$([[ $tool == initcheck ]] && echo 0 || echo 1) \
            sanitized "$tool" "$native" --gtest_filter='*Sanitize*cuda_*' || status=1
    done
    return $status
}

# One test of each kind reaches every kernel; more would take hours. memcheck alone: racecheck ends in an internal error
# on a kernel of PyTorch that the tests' references use, also with a filter that leaves all kernels out.
sanitize_tests() {
    use_torch
    sanitized memcheck "$app/$tests" --progress off \
        --filter 'TestCategory=Cuda&(Name~Lengths|Name~UnequalHeadDims|Name~OutputAndState)'
}

what=${1:-test}
[[ $# == 0 ]] || shift
case $what in
    test)
        use_torch
        export LATTN_REQUIRE_CUDA=${LATTN_REQUIRE_CUDA:-1}
        if [[ ${1:-} == --all ]]; then
            shift
            exec "$app/$tests" --progress off "$@"
        fi
        # The runner takes one filter.
        filter=TestCategory=Cuda
        arguments=()
        while [[ $# -gt 0 ]]; do
            case $1 in
                --filter) filter="$filter&(${2:?--filter needs an expression})"; shift 2 ;;
                *) arguments+=("$1"); shift ;;
            esac
        done
        exec "$app/$tests" --progress off --filter "$filter" "${arguments[@]}"
        ;;
    native)
        need_native
        export LATTN_REQUIRE_CUDA=${LATTN_REQUIRE_CUDA:-1}
        # A later --gtest_filter wins.
        exec "$native" --gtest_filter='*cuda_*' "$@"
        ;;
    sanitize)
        export LATTN_REQUIRE_CUDA=1
        status=0
        case ${1:-all} in
            native) sanitize_native || status=1 ;;
            test) sanitize_tests || status=1 ;;
            all)
                sanitize_native || status=1
                sanitize_tests || status=1
                ;;
            *) die "sanitize takes native or test, not '$1'" ;;
        esac
        exit $status
        ;;
    benchmark)
        use_torch
        exec "$app/$benchmark" "$@"
        ;;
    compare)
        [[ -x $compare ]] || die "the package has no lattn_compare; make it again where nvcc is installed"
        exec "$compare" package="$libraries/liblightning_attn.so" "$@"
        ;;
    sample)
        use_torch
        exec "$app/$sample" "$@"
        ;;
    serve)
        use_torch
        exec "$app/$serve" "$@"
        ;;
    minimax)
        use_torch
        [[ $# == 0 ]] || exec "$app/$minimax" "$@"
        for folder in "$app"/data/minimax/*/; do
            "$app/$minimax" --checkpoint "$folder" --verify "$folder/reference.safetensors"
        done
        ;;
    *) die "'$what' is none of test, native, benchmark, compare, sample, serve, minimax, sanitize" ;;
esac
