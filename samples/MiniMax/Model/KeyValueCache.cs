using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>The rotated keys and the values of the tokens so far, of one softmax layer.</summary>
internal sealed class KeyValueCache : IDisposable
{
    private const long SmallestCapacity = 64;

    private Tensor? _keys;   // [B, Hk, capacity, D]
    private Tensor? _values;
    private long _tokens;

    /// <summary>Adds tokens and returns all there are, as views that the next call may outdate.</summary>
    /// <param name="keys">[B, Hk, N, D].</param>
    /// <param name="values">As keys.</param>
    public (Tensor Keys, Tensor Values) Append(Tensor keys, Tensor values)
    {
        var count = keys.size(2);
        _keys = WithRoom(_keys, keys);
        _values = WithRoom(_values, values);
        using (NewDisposeScope())
        {
            _keys.narrow(2, _tokens, count).copy_(keys);
            _values.narrow(2, _tokens, count).copy_(values);
        }

        _tokens += count;
        return (_keys.narrow(2, 0, _tokens), _values.narrow(2, 0, _tokens));
    }

    public void Dispose()
    {
        _keys?.Dispose();
        _values?.Dispose();
    }

    /// <summary>The buffer, or one of at least twice the size with the same tokens.</summary>
    private Tensor WithRoom(Tensor? buffer, Tensor added)
    {
        var needed = _tokens + added.size(2);
        if (buffer is not null && buffer.size(2) >= needed)
        {
            return buffer;
        }

        using var scope = NewDisposeScope();
        var capacity = Math.Max(SmallestCapacity, Math.Max(needed, 2 * _tokens));
        var larger = empty(
            [added.size(0), added.size(1), capacity, added.size(3)], added.dtype, added.device);
        if (buffer is not null)
        {
            larger.narrow(2, 0, _tokens).copy_(buffer.narrow(2, 0, _tokens));
            buffer.Dispose();
        }

        return larger.DetachFromDisposeScope();
    }
}
