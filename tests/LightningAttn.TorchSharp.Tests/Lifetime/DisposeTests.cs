using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Lifetime;

/// <summary>Who owns what, inside and outside dispose scopes, and that nothing is left over.</summary>
internal sealed class DisposeTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly AttentionCase s_small = new() { B = 1, Hk = 1, Hv = 1, N = 4, D = 16, E = 16 };

    [Test]
    public void ResultsBelongToTheCallersScope([Values] bool recording)
    {
        AttentionCase.Inputs inputs = recording ? s_small.Create(Device).Leaves() : s_small.Create(Device);
        Tensor output, states;
        using (torch.NewDisposeScope())
        {
            (output, states) = s_small.Call(inputs);
            Assert.That(output.IsInvalid || states.IsInvalid, Is.False);
        }

        Assert.That(output.IsInvalid && states.IsInvalid, Is.True);
        Assert.That(inputs.All.Any(static tensor => tensor.IsInvalid), Is.False);
    }

    [Test]
    public void ACallLeavesItsResultsAndNothingElse(
        [Values] bool recording, [Values] HistoryDecay historyDecay, [Values] Layout layout)
    {
        AttentionCase attention = s_small with { HistoryDecay = historyDecay, Layout = layout };
        AttentionCase.Inputs inputs = recording ? attention.Create(Device).Leaves() : attention.Create(Device);
        using var scope = torch.NewDisposeScope();
        (Tensor output, Tensor states) = attention.Call(inputs);

        Assert.That(scope.DisposablesCount, Is.EqualTo(2));
        Assert.That(scope.Contains(output) && scope.Contains(states), Is.True);
    }

    [Test]
    public void ADecodeLeavesItsResultsAndNothingElse([Values] bool recording)
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, 4);
        Tensor slots = torch.tensor(new[] { 0L, 1, -1, 3 }).to(Device);
        inputs.K.requires_grad_(recording);
        using var scope = torch.NewDisposeScope();
        Functional.linear_decode_forward(inputs.Q, inputs.K, inputs.V, pool, inputs.Rates, slots);
        Assert.That(scope.DisposablesCount, Is.EqualTo(1));
        Functional.linear_decode_step(inputs.Q, inputs.K, inputs.V, pool, inputs.Rates);
        Assert.That(scope.DisposablesCount, Is.EqualTo(3));
    }

    [Test]
    public void NoGradientIsRecordedWhereNoneIsWanted()
    {
        AttentionCase.Inputs leaves = s_small.Create(Device).Leaves();
        using (torch.no_grad())
        {
            Assert.That(s_small.Call(leaves).Output.requires_grad, Is.False);
        }

        using (torch.inference_mode())
        {
            Assert.That(s_small.Call(s_small.Create(Device)).Output.requires_grad, Is.False);
        }

        Assert.That(s_small.Call(s_small.Create(Device)).Output.requires_grad, Is.False);
        (Tensor output, Tensor states) = s_small.Call(leaves);
        Assert.That(output.requires_grad && states.requires_grad, Is.True);
    }

    [Test]
    public void UseOutsideAnyScope()
    {
        // Another thread has no scope around it.
        string? fault = null;
        var thread = new Thread(() =>
        {
            try
            {
                AttentionCase.Inputs leaves = s_small.Create(Device).Leaves();
                (Tensor output, Tensor states) = s_small.Call(leaves);
                GC.Collect();
                GC.WaitForPendingFinalizers();
                using Tensor loss = output.sum();
                loss.backward();
                GC.Collect();
                GC.WaitForPendingFinalizers();
                bool complete = leaves.All.All(static leaf => leaf.grad is not null) && !states.IsInvalid;
                fault = complete ? null : "no gradient";
            }
            catch (Exception error)
            {
                fault = error.ToString();
            }
        });
        thread.Start();
        thread.Join();

        Assert.That(fault, Is.Null);
    }

    [Test]
    public void BackwardOnAThreadWithoutScopesLeavesOnlyItsLastGradients()
    {
        // As autograd's own threads do on CUDA.
        const int Rounds = 50;
        AttentionCase.Inputs leaves = s_small.Create(Device).Leaves();
        using var work = new System.Collections.Concurrent.BlockingCollection<Action>();
        using var done = new SemaphoreSlim(0);
        var thread = new Thread(() =>
        {
            foreach (Action action in work.GetConsumingEnumerable())
            {
                action();
                done.Release();
            }
        });
        thread.Start();
        long after = 0;
        for (int round = 0; round < Rounds; round++)
        {
            using var scope = torch.NewDisposeScope();
            (Tensor output, Tensor states) = s_small.Call(leaves);
            Tensor loss = output.sum() + states.sum();
            work.Add(() => loss.backward());
            done.Wait();
            if (round == 1)
            {
                after = Tensor.TotalCount;
            }
        }

        long growth = Tensor.TotalCount - after;
        work.CompleteAdding();
        thread.Join();

        // In the first measurement the tensors of a whole round are alive, afterwards its results alone are gone.
        Assert.That(growth, Is.LessThanOrEqualTo(0));
    }
}
