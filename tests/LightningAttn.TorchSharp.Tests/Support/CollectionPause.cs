using System.Runtime;

namespace LightningAttn.Tests.Support;

/// <summary>No garbage collection begins by itself while this lives and allocations stay within the budget.</summary>
/// <remarks>
/// TorchSharp does not keep Scalar temporaries alive: in <c>x + 1</c> a collection at the wrong moment frees one that
/// the native call still reads ("Unknown scalar type", or a crash). The tests' own arithmetic is full of them.
/// That the library's calls survive collections is tested by <see cref="Scenarios.CollectDuringCalls"/>.
/// </remarks>
internal sealed class CollectionPause : IDisposable
{
    private const long BudgetBytes = 128L << 20;

    public CollectionPause()
    {
        if (GCSettings.LatencyMode != GCLatencyMode.NoGCRegion)
        {
            GC.TryStartNoGCRegion(BudgetBytes);
        }
    }

    public void Dispose()
    {
        // A test that asks for a collection, or allocates more, has ended the pause.
        if (GCSettings.LatencyMode == GCLatencyMode.NoGCRegion)
        {
            GC.EndNoGCRegion();
        }
    }
}
