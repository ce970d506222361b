using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Arguments;

/// <summary>What is wrong with an argument is said before native code or autograd see it.</summary>
[TestFixture]
internal sealed class AttentionArgumentTests
{
    private static readonly Mistake[] s_mistakes =
    [
        new("q", "float32 [2, 6, 4] on cpu, expected rank 4, [B, Hk, N, D]",
            static a => a with { Q = torch.zeros(2, 6, 4) }),
        new("q", "int64 [2, 2, 6, 4] on cpu, expected float16, bfloat16, float32 or float64",
            static a => a with { Q = torch.zeros(2, 2, 6, 4, dtype: ScalarType.Int64) }),
        new("q", "at least one head and D >= 1", static a => a with { Q = torch.zeros(2, 2, 6, 0) }),
        new("q", "at least one head and D >= 1", static a => a with { Q = torch.zeros(2, 0, 6, 4) }),
        new("k", "expected the shape of q, [2, 2, 6, 4]", static a => a with { K = torch.zeros(2, 2, 7, 4) }),
        new("k", "expected the shape of q, [2, 2, 6, 4]", static a => a with { K = torch.zeros(2, 1, 6, 4) }),
        new("k", "bfloat16 [2, 2, 6, 4] on cpu, expected the type of q, float32",
            static a => a with { K = a.K.to(ScalarType.BFloat16) }),
        new("k", "on meta, expected the device of q, cpu",
            static a => a with { K = torch.empty(2, 2, 6, 4, device: torch.device("meta")) }),
        new("v", "expected rank 4, [B, Hv, N, E]", static a => a with { V = a.V.unsqueeze(4) }),
        new("v", "expected the type of q, float32", static a => a with { V = a.V.to(ScalarType.Float64) }),
        new("v", "[2, Hv, 6, E >= 1] as q has it", static a => a with { V = torch.zeros(2, 4, 5, 5) }),
        new("v", "[2, Hv, 6, E >= 1] as q has it", static a => a with { V = torch.zeros(3, 4, 6, 5) }),
        new("v", "Hv to be a multiple of the 2 heads of q and k", static a => a with { V = torch.zeros(2, 3, 6, 5) }),
        new("ed", "float32 [2] on cpu, expected one rate per value head: [4], [4, 1, 1] or [1, 4, 1, 1]",
            static a => a with { Ed = torch.zeros(2) }),
        new("ed", "expected one rate per value head", static a => a with { Ed = torch.zeros(1, 4) }),
        new("ed", "expected one rate per value head", static a => a with { Ed = torch.zeros(4, 1, 2) }),
        new("ed", "expected float32: in a lower precision", static a => a with { Ed = a.Ed.to(ScalarType.BFloat16) }),
        new("ed", "expected float32: in a lower precision", static a => a with { Ed = a.Ed.to(ScalarType.Float64) }),
        new("ed", "expected the device of v, cpu",
            static a => a with { Ed = torch.zeros(4, device: torch.device("meta")) }),
        new("ed", "has the value -0.5 for head 2, expected a finite rate >= 0 in nats per token",
            static a => a with { Ed = torch.tensor(new[] { 0, 1, -0.5f, 1 }) }),
        new("ed", "has the value NaN for head 3",
            static a => a with { Ed = torch.tensor(new[] { 0, 1, 1, float.NaN }) }),
        new("ed", "has the value Infinity for head 0",
            static a => a with { Ed = torch.tensor(new[] { float.PositiveInfinity, 1, 1, 1 }) }),
        new("block_size", "block_size is 0, expected a positive multiple of 64", static a => a with { BlockSize = 0 }),
        new("block_size", "block_size is -64, expected", static a => a with { BlockSize = -64 }),
        new("block_size", "block_size is 100, expected", static a => a with { BlockSize = 100 }),
        new("kv_history", "expected [B, Hv, D, E] = [2, 4, 4, 5]",
            static a => a with { History = torch.zeros(2, 2, 4, 5) }),
        new("kv_history", "expected [B, Hv, D, E] = [2, 4, 4, 5]",
            static a => a with { History = torch.zeros(2, 4, 5, 4) }),
        new("kv_history", "expected rank 4, [B, Hv, D, E]", static a => a with { History = torch.zeros(2, 4, 4) }),
        new("kv_history", "expected float32 for float32 inputs",
            static a => a with { History = torch.zeros(2, 4, 4, 5, dtype: ScalarType.Float64) }),
        new("kv_history", "expected the device of v, cpu",
            static a => a with { History = torch.zeros(2, 4, 4, 5, device: torch.device("meta")) }),
        new("scale", "scale is NaN, expected a finite number", static a => a with { Scale = double.NaN }),
        new("history_decay", "history_decay is 7, expected Exact or VllmCompatible",
            static a => a with { HistoryDecay = (HistoryDecay)7 }),
    ];

    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [Test]
    public void AMistakeIsNamed([ValueSource(nameof(s_mistakes))] Mistake mistake, [Values] bool recording)
    {
        Arguments arguments = mistake.Make(Arguments.Right());
        if (recording)
        {
            arguments.V.requires_grad_(true);
        }

        Assert.That(
            () => arguments.Call(),
            Throws.ArgumentException.With.Property(nameof(ArgumentException.ParamName)).EqualTo(mistake.Argument)
                .And.Message.Contains(mistake.Message));
    }

    [Test]
    public void TheRightArgumentsAreRight() => Assert.That(() => Arguments.Right().Call(), Throws.Nothing);

    [TestCase("q")]
    [TestCase("k")]
    [TestCase("v")]
    [TestCase("ed")]
    [TestCase("kv_history")]
    public void ADisposedTensorIsNamed(string argument)
    {
        Arguments arguments = Arguments.Right();
        (argument switch
        {
            "q" => arguments.Q,
            "k" => arguments.K,
            "v" => arguments.V,
            "ed" => arguments.Ed,
            _ => arguments.History!,
        }).Dispose();

        Assert.That(
            () => arguments.Call(),
            Throws.TypeOf<ObjectDisposedException>().With.Message.Contains($"{argument} has been"));
    }

    [Test]
    public void ANullTensorIsNamed() => Assert.That(
        () => (Arguments.Right() with { V = null! }).Call(),
        Throws.TypeOf<ArgumentNullException>().With.Property(nameof(ArgumentException.ParamName)).EqualTo("v"));

    [Test]
    public void AnotherDeviceIsNotSupported() => Assert.That(
        () => (Arguments.Right() with { Q = torch.empty(2, 2, 6, 4, device: torch.device("meta")) }).Call(),
        Throws.TypeOf<NotSupportedException>().With.Message.Contains("cpu and cuda are the devices supported"));

    internal sealed record Mistake(string Argument, string Message, Func<Arguments, Arguments> Make)
    {
        public override string ToString() => $"{Argument}: {Message}";
    }

    internal sealed record Arguments(Tensor Q, Tensor K, Tensor V, Tensor Ed)
    {
        internal Tensor? History { get; init; } = torch.zeros(2, 4, 4, 5);

        internal long BlockSize { get; init; } = 64;

        internal double Scale { get; init; } = 1;

        internal HistoryDecay HistoryDecay { get; init; }

        internal static Arguments Right() =>
            new(torch.zeros(2, 2, 6, 4), torch.zeros(2, 2, 6, 4), torch.zeros(2, 4, 6, 5), torch.zeros(4));

        internal (Tensor Output, Tensor States) Call() => Functional.lightning_attention(
            Q, K, V, Ed, BlockSize, History, Scale, history_decay: HistoryDecay);
    }
}
