using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// Rotary position embedding (Su et al., 2021, arXiv:2104.09864) of the first <paramref name="size"/> channels of a
/// head, channel i paired with i + size / 2 (NeoX order):
/// <code>
/// angle = position * theta^(-2 i / size)
/// x_i, x_(i + size/2) = x_i cos - x_(i + size/2) sin, x_(i + size/2) cos + x_i sin
/// </code>
/// </summary>
/// <param name="size">Channels that are turned, even.</param>
/// <param name="theta">Base of the frequencies.</param>
internal sealed class RotaryEmbedding(long size, double theta)
{
    /// <summary>q and k, turned.</summary>
    /// <param name="q">[B, H, N, D].</param>
    /// <param name="k">As q.</param>
    /// <param name="positions">[B or 1, N], int64.</param>
    internal (Tensor Q, Tensor K) Turn(Tensor q, Tensor k, Tensor positions)
    {
        using DisposeScope scope = NewDisposeScope();
        ScalarType wide = Kernels.StateType(q.dtype);
        // All of it on the device: a tensor made on the host would wait for the stream.
        Tensor frequencies = (arange(0, size, 2, ScalarType.Float64, positions.device) * (-Math.Log(theta) / size)).exp();
        Tensor angles = positions.unsqueeze(1).unsqueeze(-1) * frequencies; // [B or 1, 1, N, size / 2]
        (Tensor cos, Tensor sin) = (angles.cos().to(wide), angles.sin().to(wide));
        return scope.MoveToOuter(Turned(q, cos, sin), Turned(k, cos, sin));
    }

    private Tensor Turned(Tensor x, Tensor cos, Tensor sin)
    {
        Tensor[] halves = x.narrow(-1, 0, size).to(cos.dtype).chunk(2, dim: -1);
        Tensor first = (halves[0] * cos) - (halves[1] * sin);
        Tensor second = (halves[1] * cos) + (halves[0] * sin);
        Tensor rest = x.narrow(-1, size, x.size(-1) - size);
        return cat([first.to(x.dtype), second.to(x.dtype), rest], -1);
    }
}
