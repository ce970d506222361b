using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// The chunked algorithm written with TorchSharp operators: what a user would write without this library, and the time
/// it has to beat. Differentiable by autograd.
/// </summary>
/// <remarks>
/// Per chunk of C tokens, batched over batch, heads and chunks: scores = (q k^T) * decay,
/// output = scores v + (q g^(i+1)) S, update = (k g^(C-1-j))^T v; only the scan S' = g^C S + update is a loop.
/// Matrix products in the inputs' type, states and their scan in fp32. Decay tables are made once, outside of what is
/// timed.
/// </remarks>
internal sealed class ChunkedTorch : IDisposable
{
    private readonly int _chunk;
    private readonly Tensor _mask;        // [H, 1, C, C]: g^(i-j), zero above the diagonal
    private readonly Tensor _queryDecay;  // [H, 1, C, 1]: g^(i+1)
    private readonly Tensor _keyDecay;    // [H, 1, C, 1]: g^(C-1-j)
    private readonly Tensor _chunkDecay;  // [H, 1, 1]:    g^C, fp32

    public ChunkedTorch(int heads, int chunk, ScalarType type, Device device)
    {
        using var scope = NewDisposeScope();
        _chunk = chunk;
        var rates = Functional.build_slope_tensor(heads).to(device).view(-1, 1, 1, 1);
        var i = arange(chunk, float32, device);
        var row = i.view(1, 1, chunk, 1);
        var distance = (row - i).clamp(min: 0);
        _mask = (-rates * distance).exp().tril().to(type).DetachFromDisposeScope();
        _queryDecay = (-rates * (row + 1)).exp().to(type).DetachFromDisposeScope();
        _keyDecay = (-rates * (chunk - 1 - row)).exp().to(type).DetachFromDisposeScope();
        _chunkDecay = (-rates * chunk).exp().squeeze(-1).DetachFromDisposeScope();
    }

    /// <summary>
    /// Whether the number of tokens can be cut into these chunks; the tail is left out to keep the code short.
    /// </summary>
    public static bool Fits(long tokens, int chunk) => tokens % chunk == 0;

    /// <param name="q">[B, H, N, D], contiguous, as k and v [B, H, N, E].</param>
    /// <param name="k">As q.</param>
    /// <param name="v">As q.</param>
    /// <returns>The output [B, H, N, E] and the final state [B, H, D, E], fp32.</returns>
    public (Tensor Output, Tensor State) Forward(Tensor q, Tensor k, Tensor v)
    {
        using var scope = NewDisposeScope();
        var (qc, kc, vc) = (InChunks(q), InChunks(k), InChunks(v));

        var update = (kc * _keyDecay).transpose(-1, -2).matmul(vc).to(float32);
        var (entering, state) = Scan(update);

        var scores = qc.matmul(kc.transpose(-1, -2)) * _mask;
        // Not baddbmm: TorchSharp 0.107 takes its first argument for the first factor.
        var output = (qc * _queryDecay).matmul(entering.to(q.dtype)).add_(scores.matmul(vc));
        return scope.MoveToOuter(output.flatten(2, 3), state);
    }

    public void Dispose()
    {
        _mask.Dispose();
        _queryDecay.Dispose();
        _keyDecay.Dispose();
        _chunkDecay.Dispose();
    }

    /// <summary>The state before each chunk [B, H, NC, D, E] and the one after the last [B, H, D, E].</summary>
    private (Tensor Entering, Tensor Final) Scan(Tensor update)
    {
        var state = zeros_like(update.select(2, 0));
        var entering = new List<Tensor>();
        for (var chunk = 0L; chunk < update.size(2); chunk++)
        {
            entering.Add(state);
            state = addcmul(update.select(2, chunk), state, _chunkDecay, 1);
        }

        return (stack(entering, 2), state);
    }

    private Tensor InChunks(Tensor x) => x.unflatten(2, [x.size(2) / _chunk, _chunk]);
}
