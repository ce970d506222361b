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

    [Test]
    public void GarbageCollectionDuringCalls()
    {
        ChildProcess.Outcome outcome = ChildProcess.Run($"{nameof(Scenarios.CollectDuringCalls)}:{DeviceName}");

        Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
        Assert.That(outcome.Output.Trim(), Is.EqualTo("150 steps"));
    }
}
