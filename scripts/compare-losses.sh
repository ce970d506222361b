#!/usr/bin/env bash
# compare-losses.sh A B [LIMIT]: the largest difference between the training losses of two runs of the sample, which
# --losses wrote. Exits 1 if it is above LIMIT (default 1e-3), 2 if the runs cannot be compared.
set -euo pipefail

die() { printf 'error: %s\n' "$*" >&2; exit 2; }

[[ $# == 2 || $# == 3 ]] || die "usage: compare-losses.sh A B [LIMIT]"
readonly limit=${3:-1e-3}
[[ $limit =~ ^[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?$ ]] || die "the limit '$limit' is not a number"
for file in "$1" "$2"; do
    [[ -s $file ]] || die "$file is missing or empty"
done

LC_ALL=C awk -F '\t' -v limit="$limit" '
    function refuse(why) { print "error: " why > "/dev/stderr"; refused = 1; exit 2 }

    NF != 2 || $2 !~ /^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\r?$/ {
        refuse(FILENAME ":" FNR ": not a step, a tab, a loss")
    }
    NR == FNR { step[NR] = $1; loss[NR] = $2 + 0; steps = NR; next }
    FNR > steps || $1 != step[FNR] { refuse(FILENAME ":" FNR ": step " $1 " is not in the other file") }
    {
        compared = FNR
        difference = $2 - loss[FNR]
        if (difference < 0) difference = -difference
        if (difference >= largest) { largest = difference; at = $1; a = loss[FNR]; b = $2 }
    }
    END {
        if (refused) exit 2
        if (compared < steps) refuse("the second file ends after " compared " of " steps " steps")
        printf "largest difference %.3g at step %d of %d: %.7g and %.7g; limit %g\n", largest, at, steps, a, b, limit
        exit largest > limit + 0
    }' "$1" "$2"
