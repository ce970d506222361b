#!/usr/bin/env bash
# Restores the packages of artifacts/packages (./build.sh pack) into a project outside the repository, from a local feed,
# and runs a forward pass, a backward pass and decoding there: once for each of the given TorchSharp versions.
#
#   scripts/test-packages.sh [TORCHSHARP_VERSION=LIBTORCH_VERSION...]     default: 0.107.0=2.10.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly feed=$PWD/artifacts/packages
readonly rid=linux-x64

package=$(find "$feed" -name 'LightningAttn.TorchSharp.[0-9]*.nupkg' 2> /dev/null | sort | tail -n 1)
[[ -n $package ]] || { echo "error: no packages in $feed; run ./build.sh pack" >&2; exit 1; }
version=$(basename "$package" .nupkg)
version=${version#LightningAttn.TorchSharp.}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp packaging/consumer/* "$work/"

# Our packages are unpacked into a folder of their own: one of the same version may have been restored before. The
# others come from the folder that restores use anyway.
cache=$(dotnet nuget locals global-packages --list | sed 's/^[^:]*: *//; s:/$::')
mkdir -p "$cache"

(($#)) || set -- 0.107.0=2.10.0
for versions in "$@"; do
    echo "== LightningAttn.TorchSharp $version, TorchSharp ${versions%%=*}, libtorch ${versions##*=}"
    rm -rf "$work/obj" "$work/bin"
    dotnet run --project "$work" -c Release -v quiet \
        -p:LightningAttnVersion="[$version]" -p:NativeRid=$rid -p:LibtorchVersion="${versions##*=}" \
        -p:TorchSharpVersion="${versions%%=*}" \
        -p:RestoreAdditionalProjectSources="$feed" -p:RestorePackagesPath="$work/packages" \
        -p:RestoreFallbackFolders="$cache"
done
