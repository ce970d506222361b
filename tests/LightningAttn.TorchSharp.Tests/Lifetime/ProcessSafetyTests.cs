using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Lifetime;

/// <summary>What would take the process down is run in another one.</summary>
internal sealed class ProcessSafetyTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private string DeviceName => IsCuda ? "cuda" : "cpu";

    [Test]
    public void AnExceptionInBackwardIsThrownByBackwardAndItsCauseIsKept()
    {
        ChildProcess.Outcome outcome = ChildProcess.Run($"{nameof(Scenarios.BackwardErrors)}:{DeviceName}");
        string[] lines = outcome.Output.Split('\n');

        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
            Assert.That(lines, Has.Exactly(3).Contains("returned an invalid gradient"), outcome.Output);
            Assert.That(lines, Has.Exactly(3).Matches("^cause: .*modified by an inplace operation"), outcome.Output);
            Assert.That(outcome.Output, Does.Not.Contain("nothing thrown").And.Not.Contain("in spite"));
            Assert.That(outcome.Output.TrimEnd(), Does.EndWith("works again"));
        });
    }

    /// <summary>Optimised code drops a reference after its last use, and tiered compilation gets there when it
    /// likes.</summary>
    [Test]
    public void GarbageCollectionDuringCalls([Values("0", "1")] string tieredCompilation)
    {
        ChildProcess.Outcome outcome = ChildProcess.Run(
            $"{nameof(Scenarios.CollectDuringCalls)}:{DeviceName}", ("DOTNET_TieredCompilation", tieredCompilation));

        Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
        Assert.That(outcome.Output.Trim(), Is.EqualTo("100 steps"));
    }
}
