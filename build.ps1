<#
.SYNOPSIS
Builds, tests and runs LightningAttn.TorchSharp on Windows (and wherever PowerShell runs).

.EXAMPLE
./build.ps1 run
Sets up, builds, and trains the sample language model; further arguments go to it: ./build.ps1 run --help

.EXAMPLE
./build.ps1 test
Sets up, builds, and runs the native and the managed tests; further arguments go to dotnet test.

.NOTES
Commands: run, test, build, clean, help. CUDA kernels are built when nvcc is found.
The environment variable TorchBackend (cpu, cuda-linux, cuda-windows, external) chooses the libtorch package.
#>

# No param block with names of its own: --help and the like belong to the program that is run.
$ErrorActionPreference = 'Stop'
$command = if ($args.Count -gt 0) { [string]$args[0] } else { 'help' }
$rest = @(if ($args.Count -gt 1) { $args[1..($args.Count - 1)] })
if ($rest.Count -gt 0 -and $rest[0] -eq '--') { $rest = @($rest | Select-Object -Skip 1) }

function Show-Usage {
    [Console]::Out.WriteLine(@'
usage: ./build.ps1 <command> [arguments]

  run     set up, build, and train the sample language model (arguments go to it: ./build.ps1 run --help)
  test    set up, build, and run the native and the managed tests (arguments go to dotnet test)
  build   set up and build the native library and the solution
  clean   delete what was built

CUDA kernels are built when nvcc is found.
The environment variable TorchBackend = cpu | cuda-linux | cuda-windows | external chooses the libtorch package.
'@)
}

function Stop-Build([string] $message) {
    [Console]::Error.WriteLine("error: $message")
    exit 1
}

# Runs a program and ends the build when it fails.
function Invoke-Tool([string] $program, [string[]] $arguments) {
    & $program @arguments
    if ($LASTEXITCODE -ne 0) { Stop-Build "$program $($arguments -join ' '): exit status $LASTEXITCODE" }
}

function Assert-Tool([string] $name, [string] $advice) {
    if (-not (Get-Command $name -ErrorAction SilentlyContinue)) { Stop-Build "$name is missing; $advice" }
}

function Assert-Prerequisites {
    if ($env:OS -ne 'Windows_NT') {
        Invoke-Tool 'scripts/prerequisites.sh' @('--tests')
        return
    }
    Assert-Tool 'cmake' 'run: winget install Kitware.CMake'
    Assert-Tool 'dotnet' 'run: winget install Microsoft.DotNet.SDK.10'
    $found = (cmake --version | Select-Object -First 1) -replace '^.* ', '' -replace '-.*$', ''
    if ([version]$found -lt [version]'3.25') { Stop-Build "CMake 3.25 or newer is needed; this is $found" }
    if (-not (dotnet --list-sdks | Where-Object { $_ -match '^10\.' })) {
        Stop-Build 'the .NET SDK 10.0 is needed; run: winget install Microsoft.DotNet.SDK.10'
    }
}

function Build-Native {
    Invoke-Tool 'cmake' @('--preset', 'release')
    Invoke-Tool 'cmake' @('--build', '--preset', 'release', '--parallel')
}

function Build-Target([string] $target) {
    Invoke-Tool 'cmake' @('--build', '--preset', 'release', '--target', $target)
}

# Both suites run, whatever the first one says.
function Invoke-Tests {
    & ctest --preset release
    $native = $LASTEXITCODE
    Build-Target 'managed-test'
    if ($native -ne 0) { Stop-Build "native tests failed (exit status $native)" }
}

Push-Location $PSScriptRoot
try {
    $env:LATTN_ARGS = $rest -join [char]31
    $env:DOTNET_NOLOGO = '1'
    $env:DOTNET_CLI_TELEMETRY_OPTOUT = '1'
    switch ($command) {
        'run' { Assert-Prerequisites; Build-Native; Build-Target 'run-sample' }
        'test' { Assert-Prerequisites; Build-Native; Invoke-Tests }
        'build' { Assert-Prerequisites; Build-Native; Build-Target 'managed' }
        'clean' {
            foreach ($folder in "$PSScriptRoot/build", "$PSScriptRoot/artifacts") {
                if ([IO.Directory]::Exists($folder)) { [IO.Directory]::Delete($folder, $true) }
            }
        }
        { $_ -in 'help', '--help', '-h', '-?' } { Show-Usage }
        default { Show-Usage; exit 2 }
    }
}
finally {
    Pop-Location
}
