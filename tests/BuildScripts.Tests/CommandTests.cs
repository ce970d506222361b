namespace LightningAttn.BuildScripts.Tests;

/// <summary>What build.ps1 calls for each command, and how it ends.</summary>
[TestFixture]
[NonParallelizable] // environment variables and the console are the process's
internal sealed class CommandTests
{
    private static readonly string s_build = $"cmake --build --preset release --parallel {Environment.ProcessorCount}";
    private static readonly string s_nativeTests = $"ctest --preset release -j {Environment.ProcessorCount}";

    private ScriptRun _script = null!;

    [SetUp]
    public void CreateScript() => _script = new ScriptRun();

    [TearDown]
    public void DeleteScript() => _script.Dispose();

    [TestCase("build", "managed")]
    [TestCase("run", "run-sample")]
    [TestCase("pack", "pack")]
    public void ACommandBuildsTheLibraryAndItsTarget(string command, string target)
    {
        ScriptRun.Outcome outcome = _script.Run(command);

        Assert.That(outcome.ExitStatus, Is.Zero, outcome.Error);
        Assert.That(outcome.Error, Is.Empty);
        string[] calls = ["cmake --preset release", s_build, $"cmake --build --preset release --target {target}"];
        Assert.That(_script.Tools.Calls, Is.EqualTo(calls));
    }

    [Test]
    public void TestRunsBothSuites()
    {
        ScriptRun.Outcome outcome = _script.Run("test");

        Assert.That(outcome.ExitStatus, Is.Zero, outcome.Error);
        Assert.That(_script.Tools.Calls, Is.EqualTo(TestCalls()));
    }

    [Test]
    public void TheSecondSuiteRunsEvenIfTheFirstFails()
    {
        _script.Tools.Fail(s_nativeTests, 8);
        ScriptRun.Outcome outcome = _script.Run("test");

        Assert.That(_script.Tools.Calls, Is.EqualTo(TestCalls()));
        Assert.That(outcome.ExitStatus, Is.EqualTo(1));
        Assert.That(outcome.Error.Trim(), Is.EqualTo("error: native tests failed (exit status 8)"));
    }

    [Test]
    public void AFailureOfTheSecondSuiteFails()
    {
        _script.Tools.Fail("cmake --build --preset release --target managed-test", 2);

        Assert.That(_script.Run("test").ExitStatus, Is.EqualTo(1));
    }

    [Test]
    public void AFailingToolEndsTheBuildAndIsNamed()
    {
        _script.Tools.Fail(s_build, 3);
        ScriptRun.Outcome outcome = _script.Run("build");

        Assert.That(outcome.ExitStatus, Is.EqualTo(1));
        Assert.That(outcome.Error.Trim(), Is.EqualTo($"error: {s_build}: exit status 3"));
        Assert.That(_script.Tools.Calls, Is.EqualTo(new[] { "cmake --preset release", s_build }));
    }

    [TestCase("test --filter 'a b' \"c'd\" ''", "--filter", "a b", "c'd", "")]
    [TestCase("run -- --help", "--help")]
    [TestCase("run --help", "--help")]
    [TestCase("run")]
    public void ArgumentsPassThrough(string line, params string[] passed)
    {
        Assert.That(_script.Run(line).ExitStatus, Is.Zero);
        Assert.That(_script.Tools.PassedArguments, Is.EqualTo(passed));
    }

    [TestCase("cmake", "cmake is missing; run: winget install Kitware.CMake")]
    [TestCase("dotnet", "dotnet is missing; run: winget install Microsoft.DotNet.SDK.10")]
    [TestCase("cl", "no C++ compiler; run: winget install Microsoft.VisualStudio.2022.BuildTools")]
    public void WhatIsMissingIsNamedWithTheCommandThatInstallsIt(string tool, string message)
    {
        _script.Remove(tool);
        ScriptRun.Outcome outcome = _script.Run("build");

        Assert.That(outcome.ExitStatus, Is.EqualTo(1));
        Assert.That(outcome.Error, Does.StartWith($"error: {message}"));
        Assert.That(_script.Tools.Calls, Is.Empty);
    }

    [TestCase("cmake --version", "cmake version 3.24.4", "CMake 3.25 or newer is needed; this is 3.24.4")]
    [TestCase("dotnet --list-sdks", "9.0.100 [C:\\dotnet\\sdk]", "the .NET SDK 10.0 is needed")]
    public void WhatIsTooOldIsNamed(string line, string answer, string message)
    {
        _script.Tools.Answer(line, answer);
        ScriptRun.Outcome outcome = _script.Run("test");

        Assert.That(outcome.ExitStatus, Is.EqualTo(1));
        Assert.That(outcome.Error, Does.StartWith($"error: {message}"));
        Assert.That(_script.Tools.Calls, Is.Empty);
    }

    [TestCase("cmake version 4.0.0")]
    [TestCase("cmake version 3.25.0-rc2")]
    public void NewerOnesWillDo(string version)
    {
        _script.Tools.Answer("cmake --version", version);

        Assert.That(_script.Run("build").ExitStatus, Is.Zero);
    }

    [Test]
    public void NinjaBuildsWhereItAndTheCompilerAreInPath([Values] bool compiler, [Values] bool ninja)
    {
        Environment.SetEnvironmentVariable("CXX", "clang-cl"); // a compiler that does not decide
        if (ninja)
        {
            AddProgram("ninja");
        }

        if (!compiler)
        {
            _script.Remove("cl");
        }

        Assert.That(_script.Run("build").ExitStatus, Is.Zero);
        Assert.That(_script.Tools.Generator, Is.EqualTo(ninja && compiler ? "Ninja" : null));
        Assert.That(Environment.GetEnvironmentVariable("CMAKE_GENERATOR"), Is.Null);
    }

    [Test]
    public void AChosenGeneratorStays()
    {
        AddProgram("ninja");
        Environment.SetEnvironmentVariable("CMAKE_GENERATOR", "NMake Makefiles");

        Assert.That(_script.Run("build").ExitStatus, Is.Zero);
        Assert.That(_script.Tools.Generator, Is.EqualTo("NMake Makefiles"));
    }

    [TestCase("build")]
    [TestCase("nonsense")]
    public void TheSessionsEnvironmentIsAsBefore(string command)
    {
        Environment.SetEnvironmentVariable("LATTN_ARGS", "before");
        _script.Run($"{command} argument");

        Assert.Multiple(() =>
        {
            Assert.That(Environment.GetEnvironmentVariable("LATTN_ARGS"), Is.EqualTo("before"));
            Assert.That(Environment.GetEnvironmentVariable("DOTNET_NOLOGO"), Is.Null);
            Assert.That(Environment.GetEnvironmentVariable("CMAKE_GENERATOR"), Is.Null);
        });
    }

    [TestCase("nonsense")]
    [TestCase("Build.")]
    public void AnUnknownCommandPrintsTheUsageAndExits2(string command)
    {
        ScriptRun.Outcome outcome = _script.Run(command);

        Assert.That(outcome.ExitStatus, Is.EqualTo(2));
        Assert.That(outcome.Error, Does.StartWith("usage: "));
        Assert.That(_script.Tools.Calls, Is.Empty);
    }

    [TestCase("")]
    [TestCase("help")]
    [TestCase("--help")]
    [TestCase("-h")]
    public void HelpPrintsTheUsage(string command)
    {
        ScriptRun.Outcome outcome = _script.Run(command);

        Assert.That(outcome.ExitStatus, Is.Zero);
        Assert.That(outcome.Output, Does.StartWith("usage: "));
        Assert.That(outcome.Error, Is.Empty);
    }

    [Test]
    public void TheGpuPackageIsLinuxs()
    {
        ScriptRun.Outcome outcome = _script.Run("gpu-package");

        Assert.That(outcome.ExitStatus, Is.EqualTo(1));
        Assert.That(outcome.Error, Does.Contain("./build.sh gpu-package"));
    }

    [Test]
    public void CleanDeletesWhatWasBuilt()
    {
        Directory.CreateDirectory(Path.Combine(_script.Folder, "build", "release"));
        Directory.CreateDirectory(Path.Combine(_script.Folder, "artifacts"));
        Directory.CreateDirectory(Path.Combine(_script.Folder, "native"));

        Assert.That(_script.Run("clean").ExitStatus, Is.Zero);
        Assert.That(Directory.GetDirectories(_script.Folder).Select(Path.GetFileName), Is.EqualTo(new[] { "native" }));
        Assert.That(_script.Run("clean").ExitStatus, Is.Zero, "nothing there");
    }

    [TestCase("build", "")]
    [TestCase("test", "--tests")]
    [Platform("Linux")]
    public void ElsewhereThanOnWindowsTheShellScriptLooksAtTheMachine(string command, string options)
    {
        Environment.SetEnvironmentVariable("OS", null);
        AddProgram("scripts/prerequisites.sh");
        ScriptRun.Outcome outcome = _script.Run(command);

        Assert.That(outcome.ExitStatus, Is.Zero, outcome.Error);
        Assert.That(outcome.Output.Trim(), Is.EqualTo($"prerequisites.sh {options}".Trim()));
    }

    private static string[] TestCalls() =>
        ["cmake --preset release", s_build, s_nativeTests, "cmake --build --preset release --target managed-test"];

    /// <summary>A program that prints its name and arguments.</summary>
    private void AddProgram(string name)
    {
        string path = Path.Combine(_script.Folder, OperatingSystem.IsWindows() ? $"{name}.cmd" : name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (OperatingSystem.IsWindows())
        {
            File.WriteAllText(path, "@echo %~nx0 %*\r\n");
        }
        else
        {
            File.WriteAllText(path, "#!/bin/sh\necho ${0##*/} $*\n");
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }
}
