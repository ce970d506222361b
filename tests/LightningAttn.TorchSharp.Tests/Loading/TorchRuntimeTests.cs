using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Loading;

/// <summary>TorchRuntime: where libtorch is looked for, what is said when it is not found, and that it runs.</summary>
[TestFixture]
internal sealed class TorchRuntimeTests
{
    private static readonly string s_library =
        OperatingSystem.IsWindows() ? "torch_cpu.dll"
        : OperatingSystem.IsMacOS() ? "libtorch_cpu.dylib"
        : "libtorch_cpu.so";

    private string _root = "";

    [SetUp]
    public void CreateFolders()
    {
        _root = Directory.CreateTempSubdirectory().FullName;
        Directory.CreateDirectory(Path.Combine(_root, "torch", "lib"));
        File.WriteAllText(Path.Combine(_root, "torch", "lib", s_library), "");
    }

    [TearDown]
    public void DeleteFolders() => Directory.Delete(_root, recursive: true);

    [Test]
    public void LibtorchLoadedByPathRuns()
    {
        bool external = Environment.GetEnvironmentVariable("LATTN_TORCH_LIB") is { Length: > 0 };
        Assume.That(
            external || File.Exists(Path.Combine(AppContext.BaseDirectory, s_library)), "there is a libtorch to load");
        ChildProcess.Outcome outcome = ChildProcess.Run(nameof(Scenarios.LoadTorchByPath));

        Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
        Assert.That(outcome.Output.Trim(), Is.EqualTo("True 3"));
    }

    [TestCase("torch/lib")]
    [TestCase("torch")]
    [TestCase("")]
    public void TheArgumentMayBeTheFolderOrOneAbove(string below) => Assert.That(
        TorchRuntime.FindFolder(Path.Combine(_root, below), environment: "/nowhere", NoPython),
        Is.EqualTo(Path.Combine(_root, "torch", "lib")));

    [Test]
    public void TheEnvironmentComesBeforePython() => Assert.That(
        TorchRuntime.FindFolder(null, Path.Combine(_root, "torch", "lib"), NoPython),
        Is.EqualTo(Path.Combine(_root, "torch", "lib")));

    [Test]
    public void PythonIsAskedLast() => Assert.That(
        TorchRuntime.FindFolder(null, null, () => (Path.Combine(_root, "torch", "lib"), "python3")),
        Is.EqualTo(Path.Combine(_root, "torch", "lib")));

    [Test]
    public void WhatWasTriedIsSaid()
    {
        string nowhere = Path.GetFullPath("/nowhere");
        Assert.That(
            () => TorchRuntime.FindFolder("/nowhere", null, NoPython),
            Throws.TypeOf<DllNotFoundException>().With.Message.Contains($"{nowhere} (the argument 'path')"));
        Assert.That(
            () => TorchRuntime.FindFolder(null, "/nowhere", NoPython),
            Throws.TypeOf<DllNotFoundException>().With.Message.Contains($"{nowhere} (LATTN_TORCH_LIB)"));
        Assert.That(
            () => TorchRuntime.FindFolder(null, null, static () => (null, "python3: No module named 'torch'")),
            Throws.TypeOf<DllNotFoundException>().With.Message.Contains("No module named 'torch'")
                .And.Message.Contains("pip install torch"));
    }

    [Test]
    public void AnOldCppRuntimeIsExplained() => Assert.That(
        TorchRuntime.Explain("a.so", "/torch/lib", "version `GLIBCXX_3.4.32' not found (required by a.so)"),
        Does.Contain("libstdc++ of GCC 13").And.Contain("Debian 12"));

    [Test]
    [Platform("Linux")]
    public void AMissingDependencyIsExplained() => Assert.That(
        TorchRuntime.Explain("a.so", "/torch/lib", "libcudart.so.13: cannot open shared object file"),
        Does.Contain("LD_LIBRARY_PATH=/torch/lib"));

    private static (string? Folder, string Report) NoPython() =>
        throw new InvalidOperationException("Python was asked");
}
