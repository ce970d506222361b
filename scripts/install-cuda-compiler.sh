#!/usr/bin/env bash
# Installs the CUDA 12.4 device compiler (nvcc, ptxas, cuobjdump, nvdisasm, headers) from four Debian packages into one
# folder. No root, no package installed, no apt source of the machine touched: 1 GB is downloaded to a temporary
# folder and about 200 MB of it kept.
#
#   scripts/install-cuda-compiler.sh [--print-prefix]
#
# The folder is $LATTN_CUDA_PREFIX or ~/.cache/lightning_attn/cuda; --print-prefix names it and does nothing else.
# DEBIAN_MIRROR names the Debian archive where the machine's own apt sources do not.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib-debian.sh"

readonly prefix=${LATTN_CUDA_PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/lightning_attn/cuda}
readonly packages=(nvidia-cuda-toolkit nvidia-cuda-dev libcudart12 libcu++-dev)

# A kernel that only sm_90a can have, so that a half-working compiler is found out here.
compiles_a_kernel() {
    local folder status=0
    folder=$(mktemp -d)
    cat > "$folder/probe.cu" << 'KERNEL'
#include <cuda_bf16.h>
#include <math.h>
extern "C" __global__ void probe(float* out, const __nv_bfloat16* in) {
    asm volatile("wgmma.fence.sync.aligned;");
    out[threadIdx.x] = expf(__bfloat162float(in[threadIdx.x]));
}
KERNEL
    "$1/bin/nvcc" -fatbin -std=c++17 -gencode arch=compute_90a,code=sm_90a -o "$folder/probe.fatbin" \
        "$folder/probe.cu" > "$folder/log" 2>&1 &&
        "$1/bin/cuobjdump" -elf "$folder/probe.fatbin" > "$folder/elf" 2>> "$folder/log" &&
        grep -q 'text.probe' "$folder/elf" || status=1
    if [[ $status != 0 ]]; then cat "$folder/log" >&2; fi
    rm -rf "$folder"
    return $status
}

# unpack DEBS INTO: the packages' own layout under one prefix that nvcc finds its parts in.
unpack() {
    local debs=$1 into=$2 deb files multiarch
    multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2> /dev/null || echo "$(uname -m)-linux-gnu")
    files=$(dirname "$into")/files
    mkdir -p "$files" "$into"/{bin,nvvm/bin,lib64}
    for deb in "$debs"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$files" --wildcards --exclude='./usr/lib/*_static*.a' \
            --exclude='./usr/lib/*/lib[!c]*.a' --exclude='*/compute-sanitizer' --exclude='./usr/share' './usr/*'
    done

    local tool
    for tool in ptxas nvlink fatbinary cudafe++ bin2c cuobjdump nvdisasm cu++filt __nvcc_device_query; do
        mv "$files/usr/bin/$tool" "$into/bin/"
    done
    mv "$files/usr/lib/nvidia-cuda-toolkit/bin/"{nvcc,crt} "$into/bin/"
    mv "$files/usr/lib/nvidia-cuda-toolkit/bin/cicc" "$into/nvvm/bin/"
    mv "$files/usr/lib/nvidia-cuda-toolkit/libdevice" "$into/nvvm/"
    mv "$files/usr/include" "$into/"
    mv "$files/usr/lib/$multiarch/"{libcudart.so*,libcudadevrt.a,stubs} "$into/lib64/"
    rm -rf "$files"

    cat > "$into/bin/nvcc.profile" << 'PROFILE'
TOP                = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH              += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES          += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES         =+ $(_SPACE_) "-L$(TOP)/lib64/stubs" "-L$(TOP)/lib64"
PROFILE

    # glibc 2.41 declares these four as noexcept; CUDA 12.4 declares them again, without.
    sed -i -E 's/^(extern .*[ *](sinpi|cospi|sinpif|cospif)\((double|float) [a-z]+\));/\1 noexcept(true);/' \
        "$into/include/crt/math_functions.h"
    [[ $(grep -cE '(sin|cos)pif?\(.*noexcept\(true\);' "$into/include/crt/math_functions.h") -ge 4 ]] ||
        die "the declarations of sinpi, sinpif, cospi, cospif were not found in crt/math_functions.h"
}

main() {
    if [[ ${1:-} == --print-prefix ]]; then
        printf '%s\n' "$prefix"
        return
    fi
    if [[ -x $prefix/bin/nvcc ]] && compiles_a_kernel "$prefix"; then
        say "The CUDA compiler is in $prefix"
        return
    fi
    is_debian_like || die "this installer needs apt-get and dpkg-deb; on other systems install the CUDA toolkit 12.4 or
    newer from NVIDIA and set CUDACXX to its nvcc"
    command -v g++ > /dev/null || die "nvcc preprocesses with g++, which is missing: apt-get install g++"
    [[ $(dpkg --print-architecture) == amd64 || $(dpkg --print-architecture) == arm64 ]] ||
        die "Debian has no CUDA compiler for $(dpkg --print-architecture)"

    # The work is done beside the target, so that the last step is a rename: there is never half an installation.
    mkdir -p "$(dirname "$prefix")"
    work=$(mktemp -d "$(dirname "$prefix")/.cuda-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "Downloading the CUDA 12.4 compiler (1 GB, kept: 200 MB) ..."
    download_debs "$work/apt" trixie "main contrib non-free" "${packages[@]}"
    say "Unpacking ..."
    unpack "$work/apt/debs" "$work/cuda"
    compiles_a_kernel "$work/cuda" || die "the unpacked compiler does not compile a kernel for sm_90a"
    rm -rf "$prefix"
    mv "$work/cuda" "$prefix"
    say "The CUDA compiler is in $prefix ($(du -sm "$prefix" | cut -f1) MB)"
}

main "$@"
