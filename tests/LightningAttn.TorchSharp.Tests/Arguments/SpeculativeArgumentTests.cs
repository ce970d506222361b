namespace LightningAttn.Tests.Arguments;

/// <summary>The arguments of verifying and committing.</summary>
[TestFixture]
internal sealed class SpeculativeArgumentTests
{
    private static readonly Mistake[] s_mistakes =
    [
        new("k", "expected rank 4, [B, Td, Hk, D]", static a => a with { K = torch.zeros(3, 2, 8) }),
        new("k", "with Td from 1 to 16", static a => a with { K = torch.zeros(3, 17, 2, 4) }),
        new("k", "with Td from 1 to 16", static a => a with { K = torch.zeros(3, 0, 2, 4) }),
        new("k", "expected float16, bfloat16, float32 or float64",
            static a => a with { K = torch.zeros(3, 5, 2, 4, dtype: ScalarType.Int32) }),
        new("v", "expected [B, Td, Hv, E] = [3, 5, Hv, E >= 1] as k has it",
            static a => a with { V = torch.zeros(3, 4, 4, 6) }),
        new("v", "expected Hv to be a multiple of the 2 heads of k", static a => a with { V = torch.zeros(3, 5, 3, 6) }),
        new("v", "expected the type of k, float32",
            static a => a with { V = torch.zeros(3, 5, 4, 6, dtype: ScalarType.BFloat16) }),
        new("state_pool", "expected [slots, Hv, D, E] = [slots, 4, 4, 6]",
            static a => a with { Pool = torch.zeros(7, 4, 6, 4) }),
        new("state_pool", "expected float32, bfloat16 or float16 for float32 inputs",
            static a => a with { Pool = torch.zeros(7, 4, 4, 6, dtype: ScalarType.Float64) }),
        new("slope_rate", "expected one rate per value head", static a => a with { Rates = torch.zeros(3) }),
        new("slot_idx", "expected [B] = [3], one slot per row",
            static a => a with { Slots = torch.zeros(4, dtype: ScalarType.Int64) }),
    ];

    private static readonly Mistake[] s_verifyMistakes =
    [
        new("q", "expected the shape of k, [3, 5, 2, 4]", static a => a with { Q = torch.zeros(3, 5, 4, 4) }),
        new("q", "expected the type of k, float32",
            static a => a with { Q = torch.zeros(3, 5, 2, 4, dtype: ScalarType.BFloat16) }),
    ];

    private static readonly Mistake[] s_commitMistakes =
    [
        new("state_pool", "with stride 0 on axis 0", static a => a with { Pool = torch.zeros(1, 4, 4, 6).expand(7, 4, 4, 6) }),
        new("accepted", "expected int32 or int64", static a => a with { Accepted = torch.zeros(3) }),
        new("accepted", "expected [B] = [3], one number per row",
            static a => a with { Accepted = torch.zeros(4, dtype: ScalarType.Int64) }),
        new("accepted", "accepted is 6 for row 1, expected 0 to 5, the draft tokens of k",
            static a => a with { Accepted = torch.tensor(new[] { 0, 6, 1 }) }),
    ];

    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [Test]
    public void AMistakeIsNamed([ValueSource(nameof(s_mistakes))] Mistake mistake)
    {
        Arguments arguments = mistake.Make(Arguments.Right());
        AssertNamed(mistake, (arguments with { Q = torch.zeros_like(arguments.K) }).Verify);
        AssertNamed(mistake, arguments.Commit);
    }

    [Test]
    public void AMistakeOfVerifyingIsNamed([ValueSource(nameof(s_verifyMistakes))] Mistake mistake) =>
        AssertNamed(mistake, mistake.Make(Arguments.Right()).Verify);

    [Test]
    public void AMistakeOfCommittingIsNamed([ValueSource(nameof(s_commitMistakes))] Mistake mistake) =>
        AssertNamed(mistake, mistake.Make(Arguments.Right()).Commit);

    [Test]
    public void TheRightArgumentsAreRight()
    {
        Assert.That(Arguments.Right().Verify, Throws.Nothing);
        Assert.That(Arguments.Right().Commit, Throws.Nothing);
    }

    [Test]
    public void WhatIsMissingOrDisposedIsNamed()
    {
        Arguments arguments = Arguments.Right();
        Assert.That((arguments with { Q = null! }).Verify, Throws.ArgumentNullException.With.Message.Contains("q"));
        arguments.Pool.Dispose();
        Assert.That(
            arguments.Commit,
            Throws.TypeOf<ObjectDisposedException>().With.Message.Contains("state_pool has been disposed"));
    }

    private static void AssertNamed(Mistake mistake, Action call) => Assert.That(
        call,
        Throws.ArgumentException.With.Property(nameof(ArgumentException.ParamName)).EqualTo(mistake.Argument)
            .And.Message.Contains(mistake.Message));

    internal sealed record Mistake(string Argument, string Message, Func<Arguments, Arguments> Make)
    {
        public override string ToString() => $"{Argument}: {Message}";
    }

    internal sealed record Arguments(
        Tensor Q, Tensor K, Tensor V, Tensor Pool, Tensor Rates, Tensor Slots, Tensor Accepted)
    {
        internal static Arguments Right() => new(
            torch.zeros(3, 5, 2, 4),
            torch.zeros(3, 5, 2, 4),
            torch.zeros(3, 5, 4, 6),
            torch.zeros(7, 4, 4, 6),
            torch.zeros(4),
            torch.tensor(new[] { 0L, -1, 2 }),
            torch.tensor(new[] { 5L, 0, 2 }));

        internal void Verify() => Functional.linear_decode_verify(Q, K, V, Pool, Rates, Slots);

        internal void Commit() => Functional.linear_decode_commit(K, V, Pool, Rates, Slots, Accepted);
    }
}
