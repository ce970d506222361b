namespace LightningAttn.Tests.Support;

/// <summary>Between tensors and plain arrays of doubles.</summary>
internal static class Values
{
    /// <summary>The elements in row-major order, exactly.</summary>
    internal static double[] Of(Tensor tensor)
    {
        // TorchSharp's accessor of a tensor without elements cannot be enumerated.
        if (tensor.numel() == 0)
        {
            return [];
        }

        using var scope = torch.NewDisposeScope();
        double[] values = tensor.detach().cpu().to(ScalarType.Float64).contiguous().data<double>().ToArray();
        GC.KeepAlive(tensor);
        return values;
    }

    /// <summary>The elements' bits, for comparisons that allow no difference.</summary>
    internal static byte[] Bits(Tensor tensor)
    {
        using var scope = torch.NewDisposeScope();
        byte[] bytes = tensor.detach().cpu().contiguous().bytes.ToArray();
        GC.KeepAlive(tensor);
        return bytes;
    }

    /// <summary>Normal random values, the same for a seed on every machine and device.</summary>
    internal static Tensor Normal(int seed, ScalarType dtype, Device device, params long[] size)
    {
        using var scope = torch.NewDisposeScope();
        var random = new Random(seed);
        var values = new double[size.Aggregate(1L, static (product, length) => product * length)];
        for (int i = 0; i < values.Length; i++)
        {
            double radius = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble()));
            values[i] = radius * Math.Cos(2 * Math.PI * random.NextDouble());
        }

        return torch.tensor(values, size).to(dtype).to(device).MoveToOuterDisposeScope();
    }
}
