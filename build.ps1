<#
.SYNOPSIS
Builds, tests, packs and runs LightningAttn.TorchSharp on Windows (and wherever PowerShell runs).

.EXAMPLE
./build.ps1 run
Sets up, builds, and trains the sample language model; further arguments go to it: ./build.ps1 run --help

.EXAMPLE
./build.ps1 test
Sets up, builds, and runs the native and the managed tests; further arguments go to dotnet test.

.NOTES
The commands are those of build.sh. For Windows PowerShell 5.1 and PowerShell 7.
#>

# No param block with names of its own: --help and the like belong to the program that is run.
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false # exit statuses are looked at here
$onWindows = $env:OS -eq 'Windows_NT'
$command = if ($args.Count -gt 0) { [string]$args[0] } else { 'help' }
$rest = @(if ($args.Count -gt 1) { $args[1..($args.Count - 1)] })
if ($rest.Count -gt 0 -and $rest[0] -eq '--') { $rest = @(if ($rest.Count -gt 1) { $rest[1..($rest.Count - 1)] }) }

$usage = @'
usage: ./build.ps1 <command> [arguments]

  run          set up, build, and train the sample language model (arguments go to it: ./build.ps1 run --help)
  test         set up, build, and run the native and the managed tests (arguments go to dotnet test)
  build        set up and build the native library and the solution
  pack         set up, build, and make the NuGet packages (artifacts/packages)
  gpu-package  on Linux alone: ./build.sh gpu-package
  clean        delete what was built

CUDA kernels are built when nvcc is found: with the CUDA toolkit 12.0 or newer, or where CUDACXX names it.
TorchBackend = cpu | cuda-linux | cuda-windows | external in the environment chooses the libtorch (default cpu).
'@

function Stop-Build([string] $message) {
    [Console]::Error.WriteLine("error: $message")
    exit 1
}

function Test-Tool([string] $name) { [bool](Get-Command $name -ErrorAction SilentlyContinue) }

function Assert-Tool([string] $name, [string] $advice) {
    if (-not (Test-Tool $name)) { Stop-Build "$name is missing; $advice" }
}

# Runs a program and ends the build when it fails.
function Invoke-Tool([string] $program, [string[]] $arguments) {
    & $program @arguments
    if ($LASTEXITCODE -ne 0) { Stop-Build "$program $($arguments -join ' '): exit status $LASTEXITCODE" }
}

# The compiler of a developer prompt, or one that CMake finds by itself: in an installed Visual Studio.
function Test-Compiler {
    if ((Test-Tool 'cl') -or $env:CXX) { return $true }
    $vswhere = [IO.Path]::Combine("${env:ProgramFiles(x86)}", 'Microsoft Visual Studio', 'Installer', 'vswhere.exe')
    if (-not [IO.File]::Exists($vswhere)) { return $false }
    $tools = 'Microsoft.VisualStudio.Component.VC.Tools.x86.x64'
    [bool](& $vswhere -latest -products '*' -requires $tools -property installationPath)
}

function Assert-Prerequisites([string[]] $options = @()) {
    if (-not $onWindows) {
        Invoke-Tool 'scripts/prerequisites.sh' $options
        return
    }
    Assert-Tool 'cmake' 'run: winget install Kitware.CMake'
    Assert-Tool 'dotnet' 'run: winget install Microsoft.DotNet.SDK.10'
    $found = (@(cmake --version)[0] -replace '^.* ', '') -replace '-.*$', ''
    if ([version]$found -lt [version]'3.25') { Stop-Build "CMake 3.25 or newer is needed; this is $found" }
    if (-not (@(dotnet --list-sdks) -match '^10\.')) {
        Stop-Build 'the .NET SDK 10.0 is needed; run: winget install Microsoft.DotNet.SDK.10'
    }
    if (-not (Test-Compiler)) {
        Stop-Build ('no C++ compiler; run: winget install Microsoft.VisualStudio.2022.BuildTools --override ' +
            '"--passive --wait --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"')
    }
}

function Build-Native {
    # On Windows Ninja alone would take any compiler in PATH; without it CMake takes the newest Visual Studio.
    $first = -not [IO.File]::Exists("$PSScriptRoot/build/release/CMakeCache.txt")
    if ($first -and -not $env:CMAKE_GENERATOR -and (Test-Tool 'ninja') -and ((Test-Tool 'cl') -or -not $onWindows)) {
        $env:CMAKE_GENERATOR = 'Ninja'
    }
    Invoke-Tool 'cmake' @('--preset', 'release')
    Invoke-Tool 'cmake' @('--build', '--preset', 'release', '--parallel', [Environment]::ProcessorCount)
}

function Build-Target([string] $target) {
    Invoke-Tool 'cmake' @('--build', '--preset', 'release', '--target', $target)
}

# Both suites run, whatever the first one says.
function Invoke-Tests {
    & ctest --preset release -j ([Environment]::ProcessorCount)
    $native = $LASTEXITCODE
    Build-Target 'managed-test'
    if ($native -ne 0) { Stop-Build "native tests failed (exit status $native)" }
}

# The variables are those of the session that called, which gets them back as they were.
$environment = @{
    LATTN_ARGS                  = $rest -join [char]31
    DOTNET_NOLOGO               = '1'
    DOTNET_CLI_TELEMETRY_OPTOUT = '1'
    CMAKE_GENERATOR             = $env:CMAKE_GENERATOR
}
$before = @{}
foreach ($name in $environment.Keys) { $before[$name] = [Environment]::GetEnvironmentVariable($name) }

function Set-Environment([hashtable] $values) {
    foreach ($name in $values.Keys) {
        # PowerShell would hand over $null as an empty string, which .NET takes for a value.
        $value = if ($values[$name]) { $values[$name] } else { [NullString]::Value }
        [Environment]::SetEnvironmentVariable($name, $value)
    }
}

Push-Location $PSScriptRoot
try {
    Set-Environment $environment
    switch ($command) {
        'run' { Assert-Prerequisites; Build-Native; Build-Target 'run-sample' }
        'test' { Assert-Prerequisites '--tests'; Build-Native; Invoke-Tests }
        'build' { Assert-Prerequisites; Build-Native; Build-Target 'managed' }
        'pack' { Assert-Prerequisites; Build-Native; Build-Target 'pack' }
        'gpu-package' { Stop-Build 'gpu-package packs for Linux, on Linux: ./build.sh gpu-package' }
        'clean' {
            foreach ($folder in "$PSScriptRoot/build", "$PSScriptRoot/artifacts") {
                if ([IO.Directory]::Exists($folder)) { [IO.Directory]::Delete($folder, $true) }
            }
        }
        { 'help', '--help', '-h' -contains $_ } { [Console]::Out.WriteLine($usage) }
        default { [Console]::Error.WriteLine($usage); exit 2 }
    }
}
finally {
    Set-Environment $before
    Pop-Location
}
