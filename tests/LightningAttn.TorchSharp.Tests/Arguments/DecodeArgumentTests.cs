namespace LightningAttn.Tests.Arguments;

/// <summary>The arguments of decoding.</summary>
[TestFixture]
internal sealed class DecodeArgumentTests
{
    private static readonly Mistake[] s_mistakes =
    [
        new("q", "expected [B, Hk, 1, D]", static a => a with { Q = torch.zeros(3, 2, 2, 4) }),
        new("k", "expected the shape of q", static a => a with { K = torch.zeros(3, 2, 1, 5) }),
        new("v", "expected [B, Hv, 1, E] = [3, Hv, 1, E >= 1] as q has it",
            static a => a with { V = torch.zeros(3, 4, 2, 5) }),
        new("kv_caches", "expected [slots, Hv, D, E] = [slots, 4, 4, 5]",
            static a => a with { Caches = torch.zeros(7, 4, 5, 4) }),
        new("kv_caches", "expected rank 4, [slots, Hv, D, E]", static a => a with { Caches = torch.zeros(7, 4, 20) }),
        new("kv_caches", "expected float32, bfloat16 or float16 for float32 inputs",
            static a => a with { Caches = torch.zeros(7, 4, 4, 5, dtype: ScalarType.Float64) }),
        new("kv_caches", "with stride 0 on axis 0, expected a tensor that is not expanded",
            static a => a with { Caches = torch.zeros(1, 4, 4, 5).expand(7, 4, 4, 5) }),
        new("slope_rate", "expected one rate per value head", static a => a with { Rates = torch.zeros(3) }),
        new("slope_rate", "has the value -1 for head 0", static a => a with { Rates = torch.full([4], -1.0) }),
        new("slot_idx", "expected int32 or int64", static a => a with { Slots = torch.zeros(3) }),
        new("slot_idx", "expected [B] = [3], one slot per row",
            static a => a with { Slots = torch.zeros(4, dtype: ScalarType.Int64) }),
        new("slot_idx", "expected [B] = [3], one slot per row",
            static a => a with { Slots = torch.zeros(3, 1, dtype: ScalarType.Int64) }),
        new("slot_idx", "slot_idx is 7 for row 1, expected 0 to 6",
            static a => a with { Slots = torch.tensor(new[] { 0, 7, 1 }) }),
        new("slot_idx", "slot_idx is -2 for row 2", static a => a with { Slots = torch.tensor(new[] { 0L, 1, -2 }) }),
        new("slot_idx", "expected the device of v, cpu",
            static a => a with { Slots = torch.zeros(3, dtype: ScalarType.Int64, device: torch.device("meta")) }),
        new("block_size", "block_size is 0, expected a positive number", static a => a with { BlockSize = 0 }),
    ];

    private static readonly Mistake[] s_stepMistakes =
    [
        new("q", "expected [B, Hk, 1, D]", static a => a with { Q = torch.zeros(3, 2, 2, 4) }),
        new("state", "expected [B, Hv, D, E] = [3, 4, 4, 5]", static a => a with { Caches = torch.zeros(7, 4, 4, 5) }),
        new("state", "expected float32, bfloat16 or float16 for float32 inputs",
            static a => a with { Caches = torch.zeros(3, 4, 4, 5, dtype: ScalarType.Float64) }),
        new("slope_rate", "expected one rate per value head", static a => a with { Rates = torch.zeros(3) }),
    ];

    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [Test]
    public void AMistakeIsNamed([ValueSource(nameof(s_mistakes))] Mistake mistake) =>
        AssertNamed(mistake, mistake.Make(Arguments.Right(slots: 7)).Decode);

    [Test]
    public void AMistakeOfAStepIsNamed([ValueSource(nameof(s_stepMistakes))] Mistake mistake) =>
        AssertNamed(mistake, mistake.Make(Arguments.Right(slots: 3)).Step);

    [Test]
    public void TheRightArgumentsAreRight()
    {
        Assert.That(Arguments.Right(slots: 7).Decode, Throws.Nothing);
        Assert.That(Arguments.Right(slots: 3).Step, Throws.Nothing);
    }

    [Test]
    public void ADisposedCacheIsNamed()
    {
        Arguments arguments = Arguments.Right(slots: 7);
        arguments.Caches.Dispose();

        Assert.That(
            arguments.Decode,
            Throws.TypeOf<ObjectDisposedException>().With.Message.Contains("kv_caches has been disposed"));
    }

    private static void AssertNamed(Mistake mistake, Action call) => Assert.That(
        call,
        Throws.ArgumentException.With.Property(nameof(ArgumentException.ParamName)).EqualTo(mistake.Argument)
            .And.Message.Contains(mistake.Message));

    internal sealed record Mistake(string Argument, string Message, Func<Arguments, Arguments> Make)
    {
        public override string ToString() => $"{Argument}: {Message}";
    }

    internal sealed record Arguments(Tensor Q, Tensor K, Tensor V, Tensor Caches, Tensor Rates, Tensor Slots)
    {
        internal long BlockSize { get; init; } = 32;

        internal static Arguments Right(long slots) => new(
            torch.zeros(3, 2, 1, 4),
            torch.zeros(3, 2, 1, 4),
            torch.zeros(3, 4, 1, 5),
            torch.zeros(slots, 4, 4, 5),
            torch.zeros(4),
            torch.tensor(new[] { 0L, -1, 2 }));

        internal void Decode() => Functional.linear_decode_forward(Q, K, V, Caches, Rates, Slots, BlockSize);

        internal void Step() => Functional.linear_decode_step(Q, K, V, Caches, Rates);
    }
}
