namespace LightningAttn.Tests.Support;

/// <summary>How the elements of a [B, H, N, X] input lie in memory.</summary>
internal enum Layout
{
    Contiguous,

    /// <summary>[B, N, H, X] storage.</summary>
    Transposed,

    /// <summary>An inner part of a larger tensor: storage offset, padded strides, and bases that are not
    /// aligned.</summary>
    Sliced,

    /// <summary>[B, H, X, N] storage: the last axis has a stride.</summary>
    LastAxisStrided,

    /// <summary>One head's values for every head, stride 0.</summary>
    ExpandedHeads,

    /// <summary>One sequence's values for every sequence, stride 0.</summary>
    ExpandedBatch,
}

internal static class Layouts
{
    /// <summary>The values of a contiguous tensor in another layout (an expanded one repeats the first
    /// entry's).</summary>
    internal static Tensor In(this Tensor tensor, Layout layout) => layout switch
    {
        Layout.Contiguous => tensor,
        Layout.Transposed => tensor.transpose(1, 2).contiguous().transpose(1, 2),
        Layout.Sliced => Sliced(tensor),
        Layout.LastAxisStrided => tensor.transpose(2, 3).contiguous().transpose(2, 3),
        Layout.ExpandedHeads => tensor.narrow(1, 0, 1).expand(tensor.shape),
        Layout.ExpandedBatch => tensor.narrow(0, 0, 1).expand(tensor.shape),
        _ => throw new ArgumentOutOfRangeException(nameof(layout)),
    };

    /// <summary>Surroundings are NaN, so that a read outside the slice shows.</summary>
    private static Tensor Sliced(Tensor tensor)
    {
        long[] larger = [.. tensor.shape.Select(static length => length + 3)];
        Tensor slice = torch.full(larger, double.NaN, dtype: tensor.dtype, device: tensor.device);
        for (int axis = 0; axis < larger.Length; axis++)
        {
            slice = slice.narrow(axis, 1, tensor.size(axis));
        }

        using var noGrad = torch.no_grad();
        slice.copy_(tensor);
        return slice;
    }
}
