using LightningAttn.Modules;
using Layer = LightningAttn.Modules.LightningAttention;

namespace LightningAttn.Tests.Modules;

/// <summary>What is wrong with an argument is said with its name and value.</summary>
internal sealed class ModuleArgumentTests
{
    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    private static IEnumerable<TestCaseData> Constructions()
    {
        LightningAttentionOptions options = LightningAttentionOptions.MiniMax;
        yield return Case(() => new Layer(0, 2, 0, 1), "hidden_size is 0, expected at least 1.");
        yield return Case(() => new Layer(32, -1, 0, 1), "num_heads is -1, expected at least 1.");
        yield return Case(() => new Layer(32, 3, 0, 1), "hidden_size is 32, which 3 heads do not divide; give head_dim.");
        yield return Case(() => new Layer(32, 2, 0, 1, head_dim: 0), "head_dim is 0, expected at least 1.");
        yield return Case(() => new Layer(32, 2, 3, 3), "layer_idx is 3, expected 0 to 2 for 3 layers.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, decay_rates: [1]), "decay_rates has 1 rates, expected one per head, 2.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, decay_rates: [1, float.NaN]), "decay_rates has the value NaN for head 1, expected");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { NormGroups = 5 }),
            "options.NormGroups is 5, expected a divisor of num_heads * head_dim = 32.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: LightningAttentionOptions.TransNormer with { NormGroups = 2 }),
            "options.NormGroups is 2, but LayerNorm has one group.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { NormEps = -1 }), "options.NormEps is -1, expected");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { Scale = double.NaN }), "options.Scale is NaN, expected");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { RotaryFactor = 1.5 }),
            "options.RotaryFactor is 1.5, expected 0 to 1.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { RotaryFactor = 0.2 }),
            "options.RotaryFactor is 0.2, which turns 3 of head_dim = 16 channels; expected an even number.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { RotaryFactor = 1, RopeTheta = 0 }),
            "options.RopeTheta is 0, expected");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { Layout = (QkvLayout)7 }),
            "options.Layout is 7, which is no QkvLayout.");
        yield return Case(
            () => new Layer(32, 2, 0, 1, options: options with { OperatorType = ScalarType.Int32 }),
            "options.OperatorType is Int32, expected float16, bfloat16, float32 or float64.");

        static TestCaseData Case(Func<Layer> construct, string message) =>
            new TestCaseData(construct, message).SetArgDisplayNames(message);
    }

    [TestCaseSource(nameof(Constructions))]
    public void Construction(Func<Layer> construct, string message) =>
        Assert.That(() => construct(), Throws.ArgumentException.With.Message.StartsWith(message));

    [Test]
    public void Calls()
    {
        using var layer = new Layer(32, 2, 0, 1);
        using var other = new Layer(32, 4, 0, 1);
        Tensor x = torch.ones(2, 3, 32);
        using LightningAttentionState state = layer.new_state(2);
        using LightningAttentionState foreign = other.new_state(2);
        using LightningAttentionState shorter = layer.new_state(1);

        Expect(() => layer.call(torch.ones(2, 32)), "x is float32 [2, 32] on cpu, expected [B, N, 32]");
        Expect(() => layer.call(torch.ones(2, 3, 31)), "x is float32 [2, 3, 31] on cpu, expected [B, N, 32]");
        Expect(() => layer.call(x, shorter), "state is float32 [1, 2, 16, 16] on cpu, expected [B, H, D, D] = [2, 2, 16, 16]");
        Expect(() => layer.call(x, foreign), "state is float32 [2, 4, 8, 8] on cpu, expected [B, H, D, D] = [2, 2, 16, 16]");
        Expect(
            () => layer.call(x, state, torch.ones(2, 4)), "padding_mask is float32 [2, 4] on cpu, expected [B, N] = [2, 3]");
        Tensor right = torch.tensor(new[] { 1, 1, 1, 0, 1, 0 }).reshape(2, 3);
        Expect(() => layer.call(x, state, right), "padding_mask has padding behind token 1 of sequence 1, expected");
        Assert.That(() => layer.call(x, null, right), Throws.Nothing);
        Assert.That(() => layer.new_state(0), Throws.InstanceOf<ArgumentOutOfRangeException>());

        Assert.That(state.tokens, Is.Zero, "a refused call moves no state");
        shorter.Dispose();
        Assert.That(() => layer.call(torch.ones(1, 3, 32), shorter), Throws.InstanceOf<ObjectDisposedException>());

        static void Expect(Action call, string message) =>
            Assert.That(call, Throws.ArgumentException.With.Message.StartsWith(message));
    }
}
