using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// What a <see cref="LightningAttention"/> remembers of the tokens that a batch has had so far: one matrix [D, E] per
/// sequence and head, whatever their number. Every call of the module with a state goes on from it and moves it on: a
/// prompt, the next part of a prompt, one token.
/// </summary>
/// <remarks>
/// Made by <see cref="LightningAttention.new_state"/>, for that layer alone, and its caller's to dispose. Not in
/// state_dict. Where gradients are recorded they flow through the state into earlier calls; <see cref="detach"/> cuts
/// them off there (truncated backpropagation through time). Not for several threads at once.
/// </remarks>
public sealed class LightningAttentionState : AttentionState, IDisposable
{
    private readonly Tensor _slots; // [B], the rows of _kv
    private Tensor _kv; // [B, H, D, E]
    private Tensor? _positions; // [B, 1], of the last token; null where that is tokens - 1 in all sequences

    internal LightningAttentionState(long batch, long heads, long headDim, ScalarType dtype, Device device)
    {
        // What is made in inference mode could not be written outside of it.
        using IDisposable mode = inference_mode(false);
        _kv = zeros([batch, heads, headDim, headDim], dtype, device).DetachFromDisposeScope();
        _slots = arange(batch, ScalarType.Int64, device).DetachFromDisposeScope();
    }

    /// <summary>The states [B, H, D, E], float32 (float64 for float64 activations); this object's own.</summary>
    public Tensor kv => _kv;

    /// <summary>Sequences.</summary>
    public long batch_size => _slots.size(0);

    /// <summary>Tokens that each sequence has had, padding included.</summary>
    public long tokens { get; private set; }

    /// <summary>Forgets every token: zeros, in place unless gradients were recorded.</summary>
    /// <exception cref="ObjectDisposedException">The state has been disposed.</exception>
    public void reset()
    {
        detach();
        using (no_grad())
        {
            _kv.zero_();
        }

        _positions?.Dispose();
        (_positions, tokens) = (null, 0);
    }

    /// <summary>Keeps the values and forgets how they were computed.</summary>
    /// <exception cref="ObjectDisposedException">The state has been disposed.</exception>
    public void detach()
    {
        ObjectDisposedException.ThrowIf(_kv.IsInvalid, this);
        if (_kv.requires_grad)
        {
            Replace(_kv.detach());
        }
    }

    /// <summary>Disposes the tensors.</summary>
    public void Dispose()
    {
        _kv.Dispose();
        _slots.Dispose();
        _positions?.Dispose();
    }

    internal override void Check(Tensor x, Tensor? mask, LightningAttention layer)
    {
        ObjectDisposedException.ThrowIf(_kv.IsInvalid, this);
        LightningAttn.Check.SameDevice(_kv, "state", x, "x");
        (long heads, long size) = (layer.num_heads, layer.head_dim);
        if (batch_size != x.size(0) || _kv.size(1) != heads || _kv.size(2) != size)
        {
            throw LightningAttn.Check.Unexpected(
                _kv, "state", $"[B, H, D, D] = [{x.size(0)}, {heads}, {size}, {size}]");
        }

        ModuleCheck.PaddingMask(mask, x, hasState: true);
    }

    /// <summary>The first token of a sequence is at 0, padding before it at -1.</summary>
    internal override Tensor Positions(Tensor x, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor steps = mask is null
            ? arange(1, x.size(1) + 1, ScalarType.Int64, _kv.device).unsqueeze(0)
            : mask.ne(0).to(ScalarType.Int64).cumsum(1);
        Tensor positions = _positions is null ? steps + (tokens - 1) : steps + _positions;
        return positions.MoveToOuterDisposeScope();
    }

    internal override Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor rates, double scale)
    {
        bool recording = is_grad_enabled()
            && (q.requires_grad || k.requires_grad || v.requires_grad || _kv.requires_grad);
        if (!recording)
        {
            detach();
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor output = q.size(2) == 1
            ? OfTokens(DecodeToken(q, k, v, rates, recording), v.size(1), scale)
            : Prefill(q, k, v, rates, scale, recording);
        return output.MoveToOuterDisposeScope();
    }

    internal override void Advance(long count, Tensor? positions)
    {
        tokens += count;
        if (positions is null || (positions.size(0) == 1 && _positions is null))
        {
            return;
        }

        using IDisposable mode = inference_mode(false);
        Tensor last = positions.narrow(1, count - 1, 1).clone().DetachFromDisposeScope();
        _positions?.Dispose();
        _positions = last;
    }

    private Tensor Prefill(Tensor q, Tensor k, Tensor v, Tensor rates, double scale, bool recording)
    {
        (Tensor output, Tensor states) = Functional.lightning_attention(
            q, k, v, rates, kv_history: _kv, scale: scale, output_block_states: false);
        Tensor last = states.select(2, -1);
        if (recording)
        {
            Replace(last);
        }
        else
        {
            _kv.copy_(last);
        }

        return output;
    }

    /// <summary>[B, H E].</summary>
    private Tensor DecodeToken(Tensor q, Tensor k, Tensor v, Tensor rates, bool recording)
    {
        if (!recording)
        {
            return Functional.linear_decode_forward(q, k, v, _kv, rates, _slots);
        }

        (Tensor output, Tensor state) = Functional.linear_decode_step(q, k, v, _kv, rates);
        Replace(state);
        return output;
    }

    private void Replace(Tensor kv)
    {
        Tensor old = _kv;
        _kv = kv.DetachFromDisposeScope();
        old.Dispose();
    }
}
