using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <summary>
/// The operators. Shape letters: B batch, Hk query/key heads, Hv value heads (Hk divides Hv), N tokens, D query/key
/// head size, E value head size. The device of the tensors picks the backend; on CUDA the work is queued on libtorch's
/// current stream and nothing synchronises. The same call on the same machine gives bitwise the same result.
/// </summary>
public static partial class Functional
{
    /// <summary>
    /// Lightning attention: causal linear attention whose state decays per head,
    /// <code>
    /// S_t = exp(-s) S_(t-1) + k_t (x) v_t        S_0 = kv_history, zeros when absent
    /// o_t = scale * S_t^T q_t
    /// </code>
    /// computed in chunks. Differentiable once with respect to q, k, v, ed and kv_history, from the output and from
    /// every returned state; second derivatives are refused, see the remarks.
    /// </summary>
    /// <remarks>
    /// The recurrence is that of Lightning Attention-2 (Qin et al., 2024, arXiv:2401.04658). q, k and v may have any
    /// strides: a unit last stride is read in place, anything else is copied first. Arithmetic and states are fp32,
    /// fp64 for fp64 inputs. Where <c>torch.backends.cuda.matmul.allow_tf32</c> is on when the operator is called, the
    /// products of fp32 inputs on CUDA round their factors to tf32, in its backward pass too, except for the gradient
    /// of ed. Saved for the backward pass are the inputs alone, until the outputs are disposed.
    /// <para>Gradients computed with <c>create_graph: true</c> have the same values and may be used as constants.
    /// Differentiating one of them makes <c>backward()</c> throw an ExternalException, whose cause in
    /// <see cref="Native.LastBackwardError"/> is a NotSupportedException about second derivatives; as TorchSharp does
    /// not catch libtorch's errors in <c>torch.autograd.grad</c>, that function ends the process.</para>
    /// </remarks>
    /// <param name="q">Queries [B, Hk, N, D]: bfloat16, float16, float32, or float64 (CPU only). D: any size on the
    /// CPU, a multiple of 8 from 16 to 256 on CUDA.</param>
    /// <param name="k">Keys, as q.</param>
    /// <param name="v">Values [B, Hv, N, E] of q's type and device. E may differ from D; its limits are the same.
    /// </param>
    /// <param name="ed">Decay rates s >= 0 in nats per token, [Hv], [Hv, 1, 1] or [1, Hv, 1, 1], float32 (float64 also
    /// allowed with float64 inputs). On the CPU the values are checked; on CUDA they are not, since that would
    /// synchronise.</param>
    /// <param name="block_size">Tokens per returned state, a positive multiple of 64. It does not change the output.
    /// </param>
    /// <param name="kv_history">The state before the first token, [B, Hv, D, E], float32 (float64 for float64 inputs),
    /// any strides. Never written.</param>
    /// <param name="scale">Factor of the output.</param>
    /// <param name="output_block_states">False returns the final state alone.</param>
    /// <param name="history_decay">How the state entering a block is weighed; see <see cref="HistoryDecay"/>.</param>
    /// <returns>
    /// output: [B, Hv, N, E] of v's type. kv: [B, Hv, NB + 1, D, E] with NB = ceil(N / block_size), float32 (float64
    /// for float64 inputs); entry b is the state before block b, the last entry is the state after the last token. With
    /// <paramref name="output_block_states"/> false: [B, Hv, 1, D, E], that last entry.
    /// </returns>
    /// <exception cref="ArgumentException">An argument has the wrong rank, size, type or device, a rate is negative,
    /// NaN or infinite (CPU), block_size is not a positive multiple of 64, or scale is not finite. The message says
    /// what it was and what it must be.</exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static (Tensor output, Tensor kv) lightning_attention(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor ed,
        long block_size = 256,
        Tensor? kv_history = null,
        double scale = 1.0,
        bool output_block_states = true,
        HistoryDecay history_decay = HistoryDecay.Exact)
    {
        Check.Attention(q, k, v, block_size, kv_history, scale);
        if (history_decay is not (HistoryDecay.Exact or HistoryDecay.VllmCompatible))
        {
            throw new ArgumentException(
                $"history_decay is {(int)history_decay}, expected Exact or VllmCompatible.", nameof(history_decay));
        }

        using var scope = torch.NewDisposeScope();
        Tensor rates = DecayRates.Prepare(ed, nameof(ed), v.size(1), v);
        var options = new AttentionOptions(
            block_size, scale, output_block_states, Kernels.AllowsTf32(v.dtype, v.device_type));
        (Tensor output, Tensor kv) = history_decay == HistoryDecay.Exact
            ? Attend(q, k, v, rates, kv_history, options)
            : VllmHistory.Attend(q, k, v, rates, kv_history, options);
        return scope.MoveToOuter(output, kv);
    }

    /// <summary>The exact operator on checked arguments. To be called inside a dispose scope.</summary>
    internal static (Tensor Output, Tensor States) Attend(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor? history, AttentionOptions options) =>
        torch.is_grad_enabled()
        && (q.requires_grad || k.requires_grad || v.requires_grad || rates.requires_grad
            || (history is not null && history.requires_grad))
            ? Autograd.LightningAttention.Record(q, k, v, rates, history, options)
            : Kernels.Forward(q, k, v, rates, history, options);
}
