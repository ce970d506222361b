namespace LightningAttn.Tests.Varlen;

/// <summary>The arguments of lightning_attention_varlen.</summary>
[TestFixture]
internal sealed class VarlenArgumentTests
{
    private static readonly Mistake[] s_mistakes =
    [
        new("q", "expected rank 3, [T, Hk, D]", static a => a with { Q = torch.zeros(1, 2, 9, 4) }),
        new("q", "expected float16, bfloat16, float32 or float64",
            static a => a with { Q = torch.zeros(9, 2, 4, dtype: ScalarType.Int32) }),
        new("k", "expected the shape of q, [9, 2, 4]", static a => a with { K = torch.zeros(9, 2, 5) }),
        new("k", "expected the type of q, float32",
            static a => a with { K = torch.zeros(9, 2, 4, dtype: ScalarType.BFloat16) }),
        new("v", "expected [T, Hv, E] = [9, Hv, E >= 1] as q has it", static a => a with { V = torch.zeros(8, 4, 5) }),
        new("v", "expected Hv to be a multiple of the 2 heads", static a => a with { V = torch.zeros(9, 3, 5) }),
        new("ed", "expected one rate per value head", static a => a with { Rates = torch.zeros(3) }),
        new("ed", "has the value -1 for head 0", static a => a with { Rates = torch.full([4], -1.0) }),
        new("cu_seqlens", "expected int32 or int64", static a => a with { Offsets = torch.zeros(4) }),
        new("cu_seqlens", "expected [n + 1]",
            static a => a with { Offsets = torch.zeros(0, dtype: ScalarType.Int64) }),
        new("cu_seqlens", "expected [n + 1]",
            static a => a with { Offsets = torch.zeros(4, 1, dtype: ScalarType.Int64) }),
        new("cu_seqlens", "cu_seqlens[0] is -1, expected 0 to 9",
            static a => a with { Offsets = torch.tensor(new[] { -1L, 3, 3, 9 }) }),
        new("cu_seqlens", "cu_seqlens[2] is 2, expected cu_seqlens[1] = 3 to 9",
            static a => a with { Offsets = torch.tensor(new[] { 0, 3, 2, 9 }) }),
        new("cu_seqlens", "cu_seqlens[3] is 10, expected cu_seqlens[2] = 3 to 9",
            static a => a with { Offsets = torch.tensor(new[] { 0L, 3, 3, 10 }) }),
        new("cu_seqlens", "expected the device of v, cpu",
            static a => a with { Offsets = torch.zeros(4, dtype: ScalarType.Int64, device: torch.device("meta")) }),
        new("state_pool", "expected [slots, Hv, D, E] = [slots, 4, 4, 5]",
            static a => a with { Pool = torch.zeros(7, 4, 5, 4) }),
        new("state_pool", "expected float32, bfloat16 or float16 for float32 inputs",
            static a => a with { Pool = torch.zeros(7, 4, 4, 5, dtype: ScalarType.Float64) }),
        new("state_pool", "with stride 0 on axis 0, expected a tensor that is not expanded",
            static a => a with { Pool = torch.zeros(1, 4, 4, 5).expand(7, 4, 4, 5) }),
        new("state_pool", "expected at least one slot", static a => a with { Pool = torch.zeros(0, 4, 4, 5) }),
        new("state_pool", "expected a slot for each of 3 sequences, or state_indices",
            static a => a with { Pool = torch.zeros(2, 4, 4, 5), Slots = null }),
        new("state_indices", "expected int32 or int64", static a => a with { Slots = torch.zeros(3) }),
        new("state_indices", "expected [n] = [3], one slot per sequence",
            static a => a with { Slots = torch.zeros(4, dtype: ScalarType.Int64) }),
        new("state_indices", "state_indices[1] is 7, expected 0 to 6",
            static a => a with { Slots = torch.tensor(new[] { 0, 7, 1 }) }),
        new("state_indices", "state_indices[2] is -2", static a => a with { Slots = torch.tensor(new[] { 0L, 1, -2 }) }),
        new("state_indices", "state_indices[0] and state_indices[2] are both 5",
            static a => a with { Slots = torch.tensor(new[] { 5L, -1, 5 }) }),
        new("state_indices", "is given, expected null without state_pool",
            static a => a with { Pool = null, HasInitial = null }),
        new("has_initial_state", "is given, expected null without state_pool",
            static a => a with { Pool = null, Slots = null }),
        new("has_initial_state", "expected bool", static a => a with { HasInitial = torch.zeros(3) }),
        new("has_initial_state", "expected [n] = [3], one flag per sequence",
            static a => a with { HasInitial = torch.zeros(2, dtype: ScalarType.Bool) }),
        new("scale", "expected a finite number", static a => a with { Scale = double.NaN }),
    ];

    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [Test]
    public void AMistakeIsNamed([ValueSource(nameof(s_mistakes))] Mistake mistake) => Assert.That(
        mistake.Make(Arguments.Right()).Call,
        Throws.ArgumentException.With.Property(nameof(ArgumentException.ParamName)).EqualTo(mistake.Argument)
            .And.Message.Contains(mistake.Message));

    [Test]
    public void TheRightArgumentsAreRight() => Assert.That(Arguments.Right().Call, Throws.Nothing);

    [Test]
    public void TwoSequencesOfPaddingMayShareTheirSlot() => Assert.That(
        (Arguments.Right() with { Slots = torch.tensor(new[] { -1L, -1, 3 }) }).Call, Throws.Nothing);

    [Test]
    public void ADisposedPoolIsNamed()
    {
        Arguments arguments = Arguments.Right();
        arguments.Pool!.Dispose();

        Assert.That(
            arguments.Call,
            Throws.TypeOf<ObjectDisposedException>().With.Message.Contains("state_pool has been disposed"));
    }

    internal sealed record Mistake(string Argument, string Message, Func<Arguments, Arguments> Make)
    {
        public override string ToString() => $"{Argument}: {Message}";
    }

    internal sealed record Arguments(Tensor Q, Tensor K, Tensor V, Tensor Rates, Tensor Offsets)
    {
        internal Tensor? Pool { get; init; } = torch.zeros(7, 4, 4, 5);

        internal Tensor? Slots { get; init; } = torch.tensor(new[] { 2L, -1, 0 });

        internal Tensor? HasInitial { get; init; } = torch.ones(3, dtype: ScalarType.Bool);

        internal double Scale { get; init; } = 1;

        internal static Arguments Right() => new(
            torch.zeros(9, 2, 4),
            torch.zeros(9, 2, 4),
            torch.zeros(9, 4, 5),
            torch.zeros(4),
            torch.tensor(new[] { 0L, 3, 3, 9 }));

        internal void Call() => Functional.lightning_attention_varlen(
            Q, K, V, Rates, Offsets, Pool, Slots, HasInitial, Scale);
    }
}
