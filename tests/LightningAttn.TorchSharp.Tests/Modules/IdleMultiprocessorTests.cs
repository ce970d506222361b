using LightningAttn.Modules;

namespace LightningAttn.Tests.Modules;

/// <summary>How many multiprocessors are told to be there for the gate, of 132.</summary>
internal sealed class IdleMultiprocessorTests
{
    private const int All = 132;

    [TestCase(1, 16, 2048, 2048, 92, TestName = "One round of larger tiles")]
    [TestCase(1, 16, 512, 2048, 0, TestName = "One round anyhow")]
    [TestCase(1, 8, 2048, 6144, 0, TestName = "Longer than the operator")]
    [TestCase(1, 16, 511, 2048, -1, TestName = "A short operator")]
    [TestCase(1, 32, 2048, 4096, -1, TestName = "Half of them are busy")]
    [TestCase(1, 16, 8192, 2048, -1, TestName = "Several segments at once")]
    [TestCase(3, 16, 2048, 2048, -1, TestName = "A batch")]
    public void OfALayer(long batch, long heads, long tokens, long hidden, int expected)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        Tensor q = torch.empty(batch, heads, tokens, 128, dtype: ScalarType.BFloat16, device: torch.META);
        var gate = nn.Linear(hidden, heads * 128, hasBias: false, device: torch.META);
        int found = IdleMultiprocessors.AreMany(q, All) ? IdleMultiprocessors.ForProjection(q, gate, All) : -1;
        Assert.That(found, Is.EqualTo(expected));
    }

    [Test]
    public void AnotherProjectionOrTypeHasNoTarget()
    {
        using DisposeScope scope = torch.NewDisposeScope();
        Tensor q = torch.empty(1, 16, 2048, 128, dtype: ScalarType.BFloat16, device: torch.META);
        var gate = nn.Linear(2048, 2048, hasBias: false, device: torch.META);
        Assert.That(IdleMultiprocessors.ForProjection(q, nn.Sequential(gate, gate), All), Is.Zero);
        Assert.That(IdleMultiprocessors.ForProjection(q.to(ScalarType.Float32), gate, All), Is.Zero);
    }

    [Test]
    public void NoDeviceNoneIdle()
    {
        using Tensor q = torch.empty(1, 1, 512, 16, device: torch.META);
        Assert.That(IdleMultiprocessors.AreMany(q, 0), Is.False);
    }
}
