using LightningAttn.Interop;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Loading;

/// <summary>Finding the native library, and what is said when it is not there.</summary>
[TestFixture]
internal sealed class NativeLibraryTests
{
    [Test]
    public void BuildInfoNamesTheBuild() => Assert.That(
        Native.BuildInfo.Split(';').Select(static pair => pair.Split('=')[0]),
        Is.SupersetOf(new[] { "version", "compiler", "cuda", "architectures", "cpu" }));

    [Test]
    public void AMissingLibraryIsReportedWithEveryPathAndHowToBuildIt()
    {
        ChildProcess.Outcome outcome = ChildProcess.Run(nameof(Scenarios.MissingLibrary));

        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
            Assert.That(outcome.Output, Does.Contain("/nowhere/a/lib.so: no such file"));
            Assert.That(outcome.Output, Does.Contain("/nowhere/b/lib.so: no such file"));
            Assert.That(outcome.Output, Does.Contain("the operating system's own search"));
            Assert.That(outcome.Output, Does.Contain("./build.sh build"));
            Assert.That(outcome.Output, Does.Contain(NativeLibraryLoader.OverrideVariable));
        });
    }

    [Test]
    public void TheOverrideIsTheOnlyFileTried()
    {
        ChildProcess.Outcome outcome =
            ChildProcess.Run(nameof(Scenarios.UseLibrary), (NativeLibraryLoader.OverrideVariable, "/nowhere/lib.so"));

        Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
        Assert.That(outcome.Output, Does.StartWith(nameof(DllNotFoundException)));
        Assert.That(outcome.Output, Does.Contain("/nowhere/lib.so: no such file\n"));
        Assert.That(outcome.Output, Does.Contain("nothing else was tried"));
    }

    [Test]
    public void AFileThatIsNoLibraryIsReportedWithTheLoadersWords()
    {
        string file = Path.GetTempFileName();
        try
        {
            ChildProcess.Outcome outcome =
                ChildProcess.Run(nameof(Scenarios.UseLibrary), (NativeLibraryLoader.OverrideVariable, file));

            Assert.That(outcome.Output, Does.StartWith(nameof(DllNotFoundException)).And.Contain($"{file}: "));
            Assert.That(outcome.Output, Does.Not.Contain("no such file"));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Test]
    public void AnotherLibraryIsRefused()
    {
        string other = Path.Combine(
            AppContext.BaseDirectory, OperatingSystem.IsWindows() ? "LibTorchSharp.dll" : "libLibTorchSharp.so");
        Assume.That(File.Exists(other), $"{other} is there");
        ChildProcess.Outcome outcome =
            ChildProcess.Run(nameof(Scenarios.UseLibrary), (NativeLibraryLoader.OverrideVariable, other));

        Assert.That(outcome.Output, Does.StartWith(nameof(LightningAttnException)).And.Contain("lattn_abi_version"));
    }

    [Test]
    public void ThePackagesFolderComesFirst()
    {
        IReadOnlyList<string> candidates = NativeLibraryLoader.Candidates();
        string packaged = Path.Combine("runtimes", NativeLibraryLoader.RuntimeIdentifier, "native");

        Assert.That(candidates[0], Does.Contain(packaged));
        Assert.That(candidates, Is.Unique.And.All.EndsWith(NativeLibraryLoader.FileName));
    }

    [TestCase(1, typeof(ArgumentException), "what was wrong")]
    [TestCase(2, typeof(NotSupportedException), "what was wrong")]
    [TestCase(3, typeof(LightningAttnException), "CUDA: what was wrong")]
    [TestCase(4, typeof(InsufficientMemoryException), "what was wrong")]
    [TestCase(5, typeof(LightningAttnException), "status 5: what was wrong")]
    public void StatusCodesBecomeExceptions(int status, Type type, string message)
    {
        Exception error = NativeStatus.ToException(status, "what was wrong");

        Assert.That(error, Is.TypeOf(type));
        Assert.That(error.Message, Does.EndWith(message));
    }
}
