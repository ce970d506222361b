#!/usr/bin/env bash
# Checks the CUDA kernels inside the library, without a GPU:
#  - every kernel of the dispatch table is in its module, as machine code for each architecture of the build and as PTX;
#  - no kernel spills registers or keeps a stack frame (local memory), beyond scripts/fatbin-allowances.txt;
#  - shared memory and registers fit what a block of that architecture may have;
#  - the scans of *_sm90a modules multiply with wgmma (HGMMA), and no kernel of the newest architecture has loads or
#    stores of local memory;
#  - no register that a wgmma in flight still reads is written (ptxas 12.4 lets that happen: ptx/wgmma.cuh, hold()).
#
#   scripts/check-fatbins.sh [<lattn_kernels> [<folder of *.ptxas.txt> [<bin folder of the CUDA toolkit>]]]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly lister=${1:-$root/build/release/lattn_kernels}
readonly reports=${2:-$root/build/release/cuda}
readonly cuda_bin=${3:-$("$root/scripts/install-cuda-compiler.sh" --print-prefix)/bin}
readonly allowances=$root/scripts/fatbin-allowances.txt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$lister" "$work" > "$work/table"
architectures=$(sed -n 's/^build .*;architectures=\([^;]*\).*/\1/p' "$work/table")
grep '^kernel ' "$work/table" > "$work/kernels" || { echo "error: the dispatch table is empty" >&2; exit 1; }

# The newest one that the module has machine code for.
sass_architecture() {
    if [[ $1 == *_sm90a ]]; then
        echo sm_90a
    else
        tr ',' '\n' <<< "$architectures" | sed -n '/-virtual$/!{ s/-real$//; s/^/sm_/p }' | sort -V | tail -1
    fi
}

# usage: "module arch kernel registers stack static_smem local" of the machine code; ptx: "module arch kernel".
: > "$work/usage"
: > "$work/ptx"
: > "$work/sass" # "wgmma module kernel count", "local ...", "overwritten ..."
for module in $(awk '{ print $3 }' "$work/kernels" | sort -u); do
    "$cuda_bin/cuobjdump" -res-usage "$work/$module.fatbin" > "$work/dump" 2>&1
    awk -v module="$module" '
        $1 == "arch" { arch = $3 }
        $1 == "Function" { name = $2; sub(/:$/, "", name) }
        /REG:/ { split("REG STACK SHARED LOCAL", keys, " ")
                 line = module " " arch " " name
                 for (i = 1; i <= 4; i++) { match($0, keys[i] ":[0-9]+"); value = substr($0, RSTART, RLENGTH)
                                            sub(/.*:/, "", value); line = line " " value }
                 print line }' "$work/dump" >> "$work/usage"
    # Of one architecture: what the others keep in local memory is in the reports.
    "$cuda_bin/cuobjdump" -sass -arch "$(sass_architecture "$module")" "$work/$module.fatbin" 2>&1 | awk -v module="$module" '
        $1 == "Function" { name = $3 }
        /HGMMA/ { wgmma[name]++ }
        / (LDL|STL)[. ]/ { local_access[name]++ }
        # Products read operand a from registers after they were issued, until the wait for their group.
        $1 == "Function" { group = 0; split("", reads) }
        { is_code = match($0, /\/\*[0-9a-f]+\*\/ +(@!?U?P[0-9T]+ +)?[A-Z]/) }
        is_code {
            code = substr($0, RSTART + RLENGTH - 1); sub(/ *;.*/, "", code)
            opcode = code; sub(/ .*/, "", opcode)
            operands = substr(code, length(opcode) + 1); count = split(operands, operand, /, */)
            for (i = 1; i <= count; i++) gsub(/ /, "", operand[i])
            if (opcode ~ /^HGMMA/) {
                if (operand[2] ~ /^R[0-9]+$/)
                    for (i = 0; i < 4; i++) reads[substr(operand[2], 2) + i] = group
                if (operands ~ /gsb0/) group++
            } else if (opcode ~ /^WARPGROUP.DEPBAR/) {
                for (register in reads) if (reads[register] < group - substr(operand[count], 3)) delete reads[register]
            } else {
                written = opcode ~ /^SHFL/ ? operand[2] : operand[1]
                if (written ~ /^R[0-9]+/) {
                    sub(/^R/, "", written); sub(/[^0-9].*/, "", written)
                    width = opcode ~ /\.128|^LDSM.*\.4$/ ? 4 : opcode ~ /\.64|WIDE/ ? 2 : 1
                    for (i = 0; i < width; i++) if ((written + i) in reads) overwritten[name]++
                }
            }
        }
        END {
            for (name in wgmma) print "wgmma", module, name, wgmma[name]
            for (name in local_access) print "local", module, name, local_access[name]
            for (name in overwritten) print "overwritten", module, name, overwritten[name]
        }' >> "$work/sass"
    "$cuda_bin/cuobjdump" -ptx "$work/$module.fatbin" > "$work/dump" 2>&1
    awk -v module="$module" '
        $1 == "arch" { arch = $3 }
        /\.entry/ { name = $0; sub(/.*\.entry +/, "", name); sub(/[( ].*/, "", name); print module, arch, name }
        ' "$work/dump" >> "$work/ptx"
done
# spills: "kernel arch stack stores loads" as ptxas reported them.
for module in $(awk '{ print $3 }' "$work/kernels" | sort -u); do
    [[ -r $reports/$module.ptxas.txt ]] || { echo "error: $reports/$module.ptxas.txt is missing" >&2; exit 1; }
    awk '/Compiling entry function/ { gsub("\x27", ""); name = $7; arch = $9 }
         /bytes stack frame/ { print name, arch, $1, $5, $9 }' "$reports/$module.ptxas.txt"
done > "$work/spills"

awk -v architectures="$architectures" '
    function fail(message) { print "FAILED " message; failures++ }
    function allowed(kernel, arch, bytes,    i) {
        for (i = 1; i <= allowance_count; i++)
            if (kernel ~ allowance_kernel[i] && arch ~ allowance_arch[i] && bytes <= allowance_bytes[i]) return 1
        return 0
    }
    FILENAME == ARGV[1] && $1 !~ /^#/ && NF >= 3 {
        allowance_kernel[++allowance_count] = "^" $1 "$"
        allowance_arch[allowance_count] = "^" $2 "$"
        allowance_bytes[allowance_count] = $3
    }
    FILENAME == ARGV[2] {
        registers[$1, $2, $3] = $4; stack[$1, $2, $3] = $5; smem[$1, $2, $3] = $6; local_bytes[$1, $2, $3] = $7
    }
    FILENAME == ARGV[3] { ptx[$1, $2, $3] = 1 }
    FILENAME == ARGV[4] { reported[$1, $2] = 1; frame[$1, $2] = $3; spills[$1, $2] = $4 + $5 }
    FILENAME == ARGV[5] {
        if ($1 == "wgmma") wgmma[$2, $3] = $4
        if ($1 == "local") fail($3 ": " $4 " loads or stores of local memory")
        if ($1 == "overwritten") fail($3 ": " $4 " writes to operands of products in flight")
    }
    FILENAME == ARGV[6] {
        kernel = $2; module = $3; threads = $4; dynamic = $5; kernels++
        if (module ~ /_sm90a$/ && kernel ~ /_(scan|sums)_/ && !((module, kernel) in wgmma))
            fail(kernel ": no wgmma instructions")
        list = module ~ /_sm90a$/ ? "90a-real" : architectures
        count = split(list, wanted, ",")
        for (i = 1; i <= count; i++) {
            number = wanted[i]; sub(/-.*/, "", number); arch = "sm_" number
            if (wanted[i] !~ /-real$/ && !((module, arch, kernel) in ptx)) fail(kernel ": no PTX of compute_" number)
            if (wanted[i] ~ /-virtual$/) continue
            checked++
            if (!((module, arch, kernel) in registers)) { fail(kernel ": not in " module " for " arch); continue }
            if (!((kernel, arch) in reported)) { fail(kernel ": no report of ptxas for " arch); continue }
            bytes = stack[module, arch, kernel] + local_bytes[module, arch, kernel]
            if (frame[kernel, arch] > bytes) bytes = frame[kernel, arch]
            if ((bytes > 0 || spills[kernel, arch] > 0) && !allowed(kernel, arch, bytes))
                fail(kernel " on " arch ": " bytes " bytes of local memory, " spills[kernel, arch] " bytes of spills")
            # Bytes of shared memory that a block can have: CUDA programming guide, compute capabilities. From sm_90 on
            # the 1 KiB that the system takes is in what is reported, and comes on top of the 227.
            limit = arch == "sm_80" || arch == "sm_87" ? 163 : arch ~ /^sm_8/ || arch ~ /^sm_12/ ? 99 : 228
            block_smem = smem[module, arch, kernel] + dynamic
            if (block_smem > limit * 1024)
                fail(kernel " on " arch ": " block_smem " bytes of shared memory of at most " limit " KiB")
            # Registers are handed out to a warp in units of 256.
            per_thread = registers[module, arch, kernel]
            if (int((per_thread * 32 + 255) / 256) * 256 * threads / 32 > 65536)
                fail(kernel " on " arch ": " per_thread " registers for each of " threads " threads")
        }
    }
    END {
        printf "%d kernels, %d of them as machine code (%s): %d failures\n", kernels, checked, architectures, failures
        exit failures > 0
    }' "$allowances" "$work/usage" "$work/ptx" "$work/spills" "$work/sass" "$work/kernels"
