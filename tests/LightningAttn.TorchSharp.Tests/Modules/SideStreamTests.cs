using LightningAttn.Interop;
using LightningAttn.Tests.Support;
using TorchSharp.Modules;
using Layer = LightningAttn.Modules.LightningAttention;

namespace LightningAttn.Tests.Modules;

/// <summary>The layer whose gate is projected beside the operator, where both are under way for a while.</summary>
[TestFixture]
[Category(TestDevices.CudaCategory)]
internal sealed class SideStreamTests
{
    private const int Hidden = 2048;
    private const int Heads = 16;

    private static Device Cuda => torch.device(DeviceType.CUDA);

    [OneTimeSetUp]
    public void RequireCuda() => TestDevices.Require(DeviceType.CUDA);

    /// <summary>A GPU's memory is reused between.</summary>
    [Test]
    public void TheGateIsInOrder()
    {
        const int Calls = 60;
        using DisposeScope all = torch.NewDisposeScope();
        using Layer layer = NewLayer();
        Tensor x = Input();
        Tensor recorded = layer.call(x); // on one stream, with cuBLAS's own choice of kernels
        using IDisposable mode = torch.no_grad();
        byte[] bits = Values.Bits(recorded);
        Tensor different = torch.zeros(1, device: Cuda);
        for (int call = 0; call < Calls; call++)
        {
            using DisposeScope scope = torch.NewDisposeScope();
            different.add_(layer.call(x).ne(recorded).sum());
            layer.call(x * call);
        }

        Assert.That(different.item<float>(), Is.Zero);
        Assert.That(Values.Bits(layer.call(x)), Is.EqualTo(bits));
    }

    [Test]
    public void CublasHasATargetForTheGateAlone([Values] bool failing)
    {
        if (!BlasTarget.IsSupported)
        {
            Assert.Ignore("this libtorch does not give its cuBLAS handle away");
        }

        using DisposeScope all = torch.NewDisposeScope();
        using Layer layer = NewLayer();
        Tensor x = Input();
        List<int> targets = [];
        var gate = (Linear)layer.named_children().Single(static child => child.name == "output_gate").module;
        gate.register_forward_pre_hook((_, input) =>
        {
            targets.Add(BlasTarget.Current);
            return failing ? throw new InvalidOperationException("a hook's") : input;
        });
        using (torch.no_grad())
        {
            Assert.That(() => layer.call(x), failing ? Throws.InvalidOperationException : Throws.Nothing);
        }

        Assert.That(BlasTarget.Current, Is.Zero);
        Assert.That(() => layer.call(x), failing ? Throws.InvalidOperationException : Throws.Nothing);
        int multiprocessors = SideStream.Multiprocessors(x);
        if (multiprocessors >= 132)
        {
            Assert.That(targets[0], Is.InRange(multiprocessors / 2, multiprocessors - 32));
        }

        Assert.That(targets[1], Is.Zero, "recorded");
    }

    private static Layer NewLayer() => new(Hidden, Heads, 0, 2, device: Cuda, dtype: ScalarType.BFloat16);

    private static Tensor Input() => Values.Normal(1, ScalarType.BFloat16, Cuda, 1, 2048, Hidden);
}
