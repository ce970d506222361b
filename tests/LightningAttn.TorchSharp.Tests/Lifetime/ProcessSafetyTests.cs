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
    public void ASecondDerivativeIsAnErrorThatNamesIt()
    {
        ChildProcess.Outcome outcome = ChildProcess.Run($"{nameof(Scenarios.SecondDerivatives)}:{DeviceName}");
        string[] lines = outcome.Output.Split('\n');

        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);
            Assert.That(lines, Has.Exactly(14).Contains("returned an invalid gradient"), outcome.Output);
            Assert.That(Causes("lightning_attention"), Is.EqualTo(12), outcome.Output);
            Assert.That(Causes("linear_decode_forward"), Is.EqualTo(1), outcome.Output);
            Assert.That(Causes("linear_decode_step"), Is.EqualTo(1), outcome.Output);
            Assert.That(outcome.Output, Does.Not.Contain("nothing thrown").And.Not.Contain("in spite"));
            Assert.That(lines, Has.Exactly(1).EqualTo("works again"), outcome.Output);
        });

        int Causes(string name) => lines.Count(line =>
            line.StartsWith($"cause: Second derivatives of {name} are not implemented", StringComparison.Ordinal));
    }

    /// <summary>TorchSharp catches nothing there: the exception of libtorch ends the process, or on Windows, where the
    /// runtime knows foreign exceptions, becomes one of .NET.</summary>
    [Test]
    public void ASecondDerivativeByGradIsNamed()
    {
        ChildProcess.Outcome outcome = ChildProcess.Run($"{nameof(Scenarios.SecondDerivativesByGrad)}:{DeviceName}");

        Assert.Multiple(() =>
        {
            if (OperatingSystem.IsWindows())
            {
                Assert.That(outcome.ExitCode, Is.EqualTo(Scenarios.Failed), outcome.Output);
                Assert.That(outcome.Output, Does.Contain("System.Runtime.InteropServices.SEHException"));
            }
            else
            {
                Assert.That(outcome.ExitCode, Is.Not.Zero.And.Not.EqualTo(Scenarios.Failed), outcome.Output);
            }

            Assert.That(outcome.Output, Does.Contain("first derivatives").And.Not.Contain("second derivatives\n"));
            Assert.That(
                outcome.Output, Does.Contain("Second derivatives of lightning_attention are not implemented"));
        });
    }

    [Test]
    public void GradientsOfLeavesAreThereOnce()
    {
        const double GradientBytes = 3 * (64 << 20);
        ChildProcess.Outcome outcome = ChildProcess.Run($"{nameof(Scenarios.LargeLeaves)}:{DeviceName}");
        Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);

        SortedDictionary<int, ProcessMemory> steps = ProcessMemory.FromLines(outcome.Output);
        long growth = IsCuda
            ? steps[0].FreeDeviceBytes - steps[1].FreeDeviceBytes
            : steps[1].ResidentBytes - steps[0].ResidentBytes;
        TestContext.Out.WriteLine($"{growth / GradientBytes:f2} times the gradients");
        Assert.That(growth, Is.InRange(0.9 * GradientBytes, 1.5 * GradientBytes));
    }

    /// <summary>
    /// Over 10,000 steps, so that what is left over in each shows: a tensor of this size is 8 KiB, a node of autograd's
    /// graph some hundred bytes.
    /// </summary>
    [Test]
    public void TrainingDoesNotGrow()
    {
        ChildProcess.Outcome outcome = ChildProcess.Run($"{nameof(Scenarios.LongTraining)}:{DeviceName}");
        Assert.That(outcome.ExitCode, Is.Zero, outcome.Output);

        SortedDictionary<int, ProcessMemory> steps = ProcessMemory.FromLines(outcome.Output);
        foreach ((int step, ProcessMemory memory) in steps)
        {
            TestContext.Out.WriteLine($"step {step}: {memory}");
        }

        Assert.That(steps.Keys, Has.Member(0).And.Member(10_000));
        ProcessMemory first = steps[0];
        ProcessMemory last = steps[10_000];
        double[] losses = [.. outcome.Output.Split('\n')
            .Where(static line => line.StartsWith("loss ", StringComparison.Ordinal))
            .Select(static line => double.Parse(line[5..], System.Globalization.CultureInfo.InvariantCulture))];

        Assert.Multiple(() =>
        {
            Assert.That(last.ResidentBytes - first.ResidentBytes, Is.LessThan(8L << 20), "bytes left over");
            Assert.That(last.ManagedBytes - first.ManagedBytes, Is.LessThan(64L << 10), "managed bytes left over");
            Assert.That(last.PeakTensors - first.PeakTensors, Is.LessThanOrEqualTo(0), "tensors left over");
            Assert.That(last.ScopedTensors - first.ScopedTensors, Is.Zero, "tensors left over in scopes");

            // libtorch takes device memory for small tensors in pieces of 2 MiB.
            Assert.That(
                first.FreeDeviceBytes - last.FreeDeviceBytes, Is.LessThanOrEqualTo(4L << 20), "device bytes left over");
            Assert.That(losses[1], Is.LessThan(losses[0] / 4));
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
