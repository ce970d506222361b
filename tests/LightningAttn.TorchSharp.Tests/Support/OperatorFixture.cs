namespace LightningAttn.Tests.Support;

/// <summary>
/// A fixture whose tests run on each device. Every test has a dispose scope of its own, and on CUDA ends with the
/// device's pending errors.
/// </summary>
[TestFixtureSource(typeof(TestDevices), nameof(TestDevices.All))]
internal abstract class OperatorFixture(DeviceType deviceType)
{
    private DisposeScope? _scope;
    private CollectionPause? _pause;

    protected Device Device { get; } = new(deviceType);

    protected bool IsCuda { get; } = deviceType == DeviceType.CUDA;

    /// <summary>Ignores the test where the device has no kernels of the type.</summary>
    protected void RequireType(ScalarType dtype)
    {
        if (IsCuda && dtype == ScalarType.Float64)
        {
            Assert.Ignore("CUDA has no float64 kernels");
        }
    }

    [OneTimeSetUp]
    public void RequireDevice() => TestDevices.Require(deviceType);

    [SetUp]
    public void OpenScope()
    {
        _pause = new CollectionPause();
        _scope = torch.NewDisposeScope();
        PoisonFreeMemory();
    }

    [TearDown]
    public void CloseScope()
    {
        try
        {
            Native.Synchronize(Device);
        }
        finally
        {
            _scope?.Dispose();
            _pause?.Dispose();
        }
    }

    /// <summary>
    /// Leaves NaN in the memory that torch's allocator hands out next, so that an element of an output or a workspace
    /// that is read before it is written, or never written, shows. The CUDA allocator has one pool up to 1 MiB and one
    /// above.
    /// </summary>
    private void PoisonFreeMemory()
    {
        using var scope = torch.NewDisposeScope();
        foreach (long elements in new[] { 1 << 10, 1 << 14, 1 << 17, 1 << 17, 1 << 22 })
        {
            torch.full(elements, double.NaN, device: Device);
        }
    }
}
