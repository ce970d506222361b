using LightningAttn.Tests.Support;
using MiniMax;
using MiniMax.Checkpoints;
using MiniMax.Model;
using MiniMax.Verification;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>
/// The sample's decoder against what Hugging Face transformers computed from the same checkpoint (tests/data/minimax).
/// </summary>
internal sealed class MiniMaxParityTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private int _threads;

    /// <summary>The tensors are too small for threads that wait for each other.</summary>
    [SetUp]
    public void UseOneThread()
    {
        _threads = torch.get_num_threads();
        torch.set_num_threads(1);
    }

    [TearDown]
    public void RestoreThreads() => torch.set_num_threads(_threads);

    [Test]
    public void LogitsAndAttentionAreTheirs(
        [Values(MiniMaxData.EightHeads, MiniMaxData.SixHeads)] string checkpoint,
        [Values("prompt", "batch")] string kind)
    {
        using MiniMaxModel model = Load(checkpoint);
        using ReferenceRun reference = Open(model, checkpoint, kind);
        List<Difference> differences = Verifier.Compare(model, reference, Device);

        Assert.That(differences, Has.Count.EqualTo(1 + model.Config.Layers));
        foreach (Difference difference in differences)
        {
            TestContext.Out.WriteLine($"{difference.What}: {difference.Largest:E1}, rms {difference.Rms:E1}");
            Assert.That(difference.IsSmall, Is.True, difference.ToString());
        }
    }

    [Test]
    public void TokensAreTheirs(
        [Values(MiniMaxData.EightHeads, MiniMaxData.SixHeads)] string checkpoint,
        [Values("prompt", "batch")] string kind,
        [Values(0, 1, 7, 16)] int chunk)
    {
        using MiniMaxModel model = Load(checkpoint);
        using ReferenceRun reference = Open(model, checkpoint, kind);
        (long same, long all) = Verifier.CompareTokens(model, reference, Device, chunk);

        Assert.That(all, Is.EqualTo(kind == "prompt" ? 32 : 3 * 16));
        Assert.That(same, Is.EqualTo(all));
    }

    /// <summary>The logits of every token, whatever was read before in whatever pieces.</summary>
    [Test]
    public void LogitsOfPassesThatGoOnAreTheirs(
        [Values(MiniMaxData.EightHeads, MiniMaxData.SixHeads)] string checkpoint,
        [Values("prompt", "batch")] string kind,
        [Values(1, 5, 12)] int chunk)
    {
        using MiniMaxModel model = Load(checkpoint);
        using ReferenceRun reference = Open(model, checkpoint, kind);
        using var noGrad = torch.no_grad();
        Tensor tokens = reference.Tokens.to(Device);
        Tensor? real = kind == "prompt" ? null : reference.Real.to(Device);
        using DecoderState state = model.NewState(tokens.size(0));
        var pieces = new List<Tensor>();
        for (long start = 0; start < tokens.size(1); start += chunk)
        {
            long count = Math.Min(chunk, tokens.size(1) - start);
            pieces.Add(model.call(tokens.narrow(1, start, count), real?.narrow(1, start, count), state));
        }

        var difference = Difference.Of("logits", torch.cat(pieces, 1), reference.Logits, real);
        Assert.That(difference.IsSmall, Is.True, difference.ToString());
        Assert.That(state.Tokens, Is.EqualTo(tokens.size(1)));
    }

    [Test]
    public void AComparisonSeesADifference()
    {
        using MiniMaxModel model = Load(MiniMaxData.EightHeads);
        using ReferenceRun reference = Open(model, MiniMaxData.EightHeads, "prompt");
        using (torch.no_grad())
        {
            model.get_parameter("model.layers.2.self_attn.norm.weight")!.mul_(1.01);
        }

        List<Difference> differences = Verifier.Compare(model, reference, Device);
        Assert.That(
            differences.Select(static difference => difference.IsSmall),
            Is.EqualTo(new[] { false, true, true, false, false }));
    }

    [Test]
    public void NaNIsADifference()
    {
        Tensor values = torch.tensor(new[] { 1f, float.NaN }).view(1, 2, 1);
        Assert.That(Difference.Of("", values, torch.ones(1, 2, 1), null).IsSmall, Is.False);
        Assert.That(
            Difference.Of("", values, torch.ones(1, 2, 1), torch.tensor(new[] { true, false }).view(1, 2)).IsSmall,
            Is.True);
    }

    [Test]
    public void NothingIsLeftBehind()
    {
        using MiniMaxModel model = Load(MiniMaxData.SixHeads);
        using ReferenceRun reference = Open(model, MiniMaxData.SixHeads, "batch");
        Verifier.CompareTokens(model, reference, Device, 7);
        using var scope = torch.NewDisposeScope();
        long before = Tensor.TotalCount;
        Verifier.Compare(model, reference, Device);
        Verifier.CompareTokens(model, reference, Device, 7);

        Assert.That(scope.DisposablesCount, Is.Zero);
        Assert.That(Tensor.TotalCount, Is.EqualTo(before));
    }

    /// <summary>TorchSharp goes on counting a tensor that became a parameter, so the count says nothing here.</summary>
    [Test]
    public void AModelDisposesItsWeights()
    {
        MiniMaxModel model = Load(MiniMaxData.SixHeads);
        Tensor[] weights = [.. model.parameters()];
        model.Dispose();

        Assert.That(weights, Has.Length.EqualTo(38));
        Assert.That(weights.Select(static weight => weight.IsInvalid), Is.All.True);
    }

    /// <summary>A model that is made in a scope outlives it.</summary>
    [Test]
    public void AModelOutlivesTheScopeThatItIsMadeIn()
    {
        MiniMaxModel model;
        using (torch.NewDisposeScope())
        {
            model = Load(MiniMaxData.EightHeads);
        }

        using (model)
        {
            using ReferenceRun reference = Open(model, MiniMaxData.EightHeads, "prompt");
            Assert.That(Verifier.Compare(model, reference, Device)[0].IsSmall, Is.True);
        }
    }

    private MiniMaxModel Load(string checkpoint)
    {
        MiniMaxModel model = MiniMaxCheckpoint.Load(MiniMaxData.Folder(checkpoint));
        model.to(Device);
        return model;
    }

    private static ReferenceRun Open(MiniMaxModel model, string checkpoint, string kind) =>
        ReferenceRun.Open(MiniMaxData.Reference(checkpoint), kind, model.Config);
}
